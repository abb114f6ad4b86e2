import numpy as np
import pytest

from delg_jax import configuration
from delg_jax.data.sources import FileSource
from delg_jax.errors import UserError
from delg_jax.features import extract, network, pca
from delg_jax.features.extraction import Loader
from delg_jax.features.extractor import Extractor
from delg_jax.features.network import attention_threshold, fit_pca
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.models.delg import build
from delg_jax.training import trained_network
from delg_jax.training.checkpoints import FOLDER
from tests import photographs, tiny
from tests.photographs import draw, save, truncate
from tests.tiny import random_variables, retrieval_config


@pytest.fixture
def config(tmp_path):
    config = retrieval_config(tmp_path).copy_and_resolve_references().unlock()
    config.extract.pca_dim, config.extract.pca_whitening = 3, 1.0
    config.extract.batch_pixels = 1
    return config


@pytest.fixture
def source(tmp_path):
    for number in range(5):
        save(tmp_path / f"{number}.png", draw(number, 64, 64))
    return FileSource(tmp_path, [f"{n}.png" for n in range(5)], np.full(5, -1))


def fitted(config, source, **fields):
    data = config.data
    loader = Loader(source, None, config.extract.max_size, data.min_side, data.max_pixels)
    sample = np.linspace(0, 4, min(config.extract.pca_images, 5)).astype(int)
    dim, whitening = config.extract.pca_dim, config.extract.pca_whitening
    return fit_pca(loader, sample, extractor(config, **fields), dim, whitening)


def extractor(config, **fields):
    config.model.update(fields)
    module = build(config.model)
    return Extractor(module, random_variables(module), ExtractionSettings.of(config.extract))


def test_fits_on_evenly_spaced_images_at_their_own_scale(config, source):
    config.extract.pca_images = 3
    found = fitted(config, source)
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    pictures = [draw(number, 64, 64) for number in (0, 2, 4)]
    local = [features.local for features in extractor(config)(pictures)]
    sample = np.concatenate([one.descriptors[one.mask] for one in local])
    expected = pca.fit(sample, 3, 1.0)
    np.testing.assert_allclose(found.matrix, expected.matrix, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)


def test_bad_images_are_left_out(config, source):
    truncate(source.root / "0.png")
    assert fitted(config, source).matrix.shape == (8, 3)


def test_there_is_none_unless_asked_for(config, source):
    assert fitted(config, source, local_head=False) is None
    config.extract.pca_dim = 0
    assert fitted(config, source, local_head=True) is None


def test_a_sample_without_descriptors_is_refused(config, source):
    for path in source.root.glob("*.png"):
        path.write_text("no image")
    with pytest.raises(UserError, match=r"pca_dim = 3: .* 0 descriptors"):
        fitted(config, source)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("config.model.local_dim", 8)),
        ({"extract.pca_dim": 5}, ("config.extract.pca_dim", 5)),
        ({"model.dim_reduction": "none"}, ("", 0)),
        ({"model.dim_reduction": "none", "extract.pca_dim": 5}, ("config.extract.pca_dim", 5)),
        ({"model.local_head": False}, ("", 0)),
        ({"extract.imported_local": "features.h5"}, ("", 0)),
    ],
)
def test_the_dimension_is_that_of_the_last_step(changes, expected):
    config = configuration.override(tiny.tiny_config(), changes)
    assert network.local_dimension(config) == expected
    network.check_dimension(config)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {"model.local_dim": 12, "extract.local_encoding": "sign"},
            r"model\.local_dim = 12: .*config\.extract\.local_encoding = 'sign'",
        ),
        (
            {"extract.pca_dim": 5, "extract.local_encoding": "sign"},
            r"extract\.pca_dim = 5: .*config\.extract\.local_encoding = 'sign'",
        ),
        ({"extract.pca_dim": 16}, r"extract\.pca_dim = 16: .*config\.model\.local_dim \(=8\)"),
    ],
)
def test_impossible_dimensions_are_refused_before_anything_is_read(tmp_path, changes, names):
    config = tiny.retrieval_config(photographs.make_revisited(tmp_path / "data"))
    config = configuration.override(config, {**changes, "data.root": str(tmp_path / "absent")})
    with pytest.raises(UserError, match=rf"^config\.{names}"):
        extract(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


QUANTILES = {"attention_p50": 0.4, "attention_p75": 0.9}


@pytest.fixture
def asked(monkeypatch):
    """The checkpoints whose quantiles were read."""
    paths = []
    monkeypatch.setattr(
        trained_network, "attention_thresholds", lambda p: paths.append(p) or QUANTILES
    )
    return paths


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_without_a_quantile_tau_is_the_threshold(tmp_path, threshold):
    assert attention_threshold(threshold, 0.0, "", tmp_path) == threshold


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 0.4), (0.75, 0.9)])
def test_the_quantile_is_that_of_the_checkpoint(tmp_path, asked, quantile, expected):
    (tmp_path / FOLDER / "7").mkdir(parents=True)
    assert attention_threshold(0.0, quantile, "", tmp_path) == expected
    named = tmp_path / "other" / FOLDER
    (named / "5").mkdir(parents=True)
    assert attention_threshold(0.0, quantile, str(named / "5"), tmp_path) == expected
    assert asked == [tmp_path / FOLDER, named / "5"]


@pytest.mark.parametrize(
    ("threshold", "quantile", "rule"),
    [
        (0.0, 0.25, "0.5 or 0.75"),
        (0.1, 0.5, "attention_threshold"),
        (0.0, 0.5, "checkpoint"),
    ],
)
def test_a_quantile_that_cannot_be_used_is_refused(tmp_path, threshold, quantile, rule):
    with pytest.raises(UserError, match=rule) as error:
        attention_threshold(threshold, quantile, "", tmp_path)
    assert error.value.subject == "config.extract.attention_quantile"
