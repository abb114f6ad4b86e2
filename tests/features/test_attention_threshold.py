import pytest

from delg_jax.errors import UserError
from delg_jax.features.selection import attention_threshold
from delg_jax.training import trained_network
from delg_jax.training.checkpoints import FOLDER
from tests.tiny import retrieval_config

FOUND = {"attention_p50": 0.4, "attention_p75": 0.9}


@pytest.fixture
def config():
    return retrieval_config("unused").copy_and_resolve_references().unlock()


@pytest.fixture
def asked(monkeypatch):
    """The checkpoints whose quantiles were read."""
    paths = []
    monkeypatch.setattr(trained_network, "attention_thresholds", lambda p: paths.append(p) or FOUND)
    return paths


def test_without_a_quantile_it_is_the_threshold(config, tmp_path):
    assert attention_threshold(config, tmp_path) == 0.0
    config.extract.attention_threshold = 0.3
    assert attention_threshold(config, tmp_path) == 0.3


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 0.4), (0.75, 0.9)])
def test_the_quantile_is_that_of_the_checkpoint(config, tmp_path, asked, quantile, expected):
    (tmp_path / FOLDER / "7").mkdir(parents=True)
    config.extract.attention_quantile = quantile
    assert attention_threshold(config, tmp_path) == expected
    named = tmp_path / "other" / FOLDER
    (named / "5").mkdir(parents=True)
    config.model.checkpoint = str(named / "5")
    assert attention_threshold(config, tmp_path) == expected
    assert asked == [tmp_path / FOLDER, named / "5"]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"attention_quantile": 0.25}, "must be 0, 0.5 or 0.75"),
        ({"attention_quantile": 0.5, "attention_threshold": 0.1}, "attention_threshold is set"),
        ({"attention_quantile": 0.5}, "needs a network from a checkpoint"),
    ],
)
def test_mistakes_are_refused(config, tmp_path, fields, rule):
    config.extract.update(fields)
    with pytest.raises(UserError, match=rule) as error:
        attention_threshold(config, tmp_path)
    assert error.value.subject == "config.extract.attention_quantile"
