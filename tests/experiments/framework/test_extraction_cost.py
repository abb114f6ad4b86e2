import pytest

from configs import default
from delg_jax import configuration
from experiments.framework import extraction_cost
from tests.tiny import random_variables, tiny_config

SMALL = {
    "extract.max_size": 48,
    "extract.local_scales": (1.0,),
    "extract.global_scales": (1.0,),
    "extract.max_features": 10,
    "model.local_dim": 16,
}


@pytest.fixture(autouse=True)
def _random_weights(monkeypatch):
    """Of NumPy: compiling the initialisers takes seconds."""
    monkeypatch.setattr(extraction_cost, "initialize", lambda module, _: random_variables(module))


def test_bytes_are_counted_from_the_descriptors():
    found = extraction_cost.measure(configuration.override(tiny_config(), SMALL))
    pooled = 4 * 16
    assert found["bytes"] == {"global": pooled, "float32": pooled + 4 * 10 * 16, "sign": 10 * 2}
    assert found["gigabytes"]["global"] == pytest.approx(pooled * 1_005_994 / 2**30)
    low, high = found["range"]
    assert 0 < low <= found["milliseconds"] <= high


def test_without_a_local_head_only_global_bytes_are_counted():
    config = configuration.override(tiny_config(), {**SMALL, "model.local_head": False})
    assert list(extraction_cost.measure(config)["bytes"]) == ["global"]


def test_the_papers_dimensions_give_the_papers_gigabytes():
    config = default.get_config()
    size = extraction_cost._bytes(
        config.model.global_dim, config.extract.max_features, config.model.local_dim
    )
    found = {name: extraction_cost.IMAGES * value / 2**30 for name, value in size.items()}
    assert found["global"] == pytest.approx(7.7, abs=0.05)
    assert found["float32"] == pytest.approx(485, rel=0.01)
    assert found["sign"] == pytest.approx(16, rel=0.1)
