import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.evaluation import evaluate
from delg_jax.features import extract
from delg_jax.features.formats import hloc, sift
from tests.photographs import make_revisited
from tests.tiny import retrieval_config


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="extra `bench`"):
        sift.require_opencv()


def test_the_strongest_features_come_first(rng):
    cv2 = pytest.importorskip("cv2", reason="SIFT needs OpenCV")
    image = np.kron(rng.integers(0, 256, (8, 10, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    many = sift.detect(cv2.SIFT_create(), image, 1000)
    few = sift.detect(cv2.SIFT_create(), image, 5)
    assert len(many.mask) > 5 == len(few.mask)
    assert (np.diff(many.scores) <= 0).all()
    np.testing.assert_array_equal(few.descriptors, many.descriptors[:5])
    assert (many.locations >= 0).all()
    assert (many.locations < np.array([[96, 120]])).all()
    assert many.locations[:, 0].max() < 96 < many.locations[:, 1].max()  # (y, x)


def test_an_image_without_texture_has_no_features():
    cv2 = pytest.importorskip("cv2", reason="SIFT needs OpenCV")
    found = sift.detect(cv2.SIFT_create(), np.full((40, 40, 3), 9, np.uint8), 10)
    assert found.locations.shape == (0, 2)
    assert found.descriptors.shape == (0, 128)


@pytest.mark.parametrize("queries", [["a", "a"], ["b"]])
def test_a_name_that_one_file_cannot_hold_twice_is_refused(tmp_path, monkeypatch, queries):
    monkeypatch.setattr(sift, "require_opencv", mock.MagicMock())
    data = SimpleNamespace(
        queries=SimpleNamespace(names=queries), database=SimpleNamespace(names=["b", "c"])
    )
    stores = SimpleNamespace(data=data, queries=None, database=None)
    with pytest.raises(UserError, match=f"image = '{queries[0]}'"):
        sift.write(tmp_path / "sift.h5", stores, retrieval_config(tmp_path))
    assert not list(tmp_path.iterdir())


def test_sift_stands_beside_the_networks_global_descriptors(tmp_path):
    pytest.importorskip("cv2", reason="SIFT needs OpenCV")
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    extracted = extract(config, tmp_path / "ours")
    path = tmp_path / "sift.h5"
    sift.write(path, extracted, config)
    name = extracted.queries.names[0]
    with hloc.reading(path) as reader:
        local, pooled = reader.read_local(name), reader.read_global(name)
    np.testing.assert_array_equal(pooled, extracted.queries.global_descriptors()[0])
    assert 0 < len(local.mask) <= config.extract.max_features
    imported = {
        "extract.imported_local": str(path),
        "extract.imported_global": str(path),
        "eval.methods": ("global", "global+sp"),
    }
    mine = evaluate(
        configuration.override(config, {"eval.methods": ("global",)}), tmp_path / "ours"
    )
    theirs = evaluate(configuration.override(config, imported), tmp_path / "sift")
    assert theirs["methods"]["global"] == mine["methods"]["global"]
    assert theirs["methods"]["global+sp"]["medium"]["map"] > 0


def test_rootsift_has_unit_norm_and_the_hellinger_kernel(rng):
    descriptors = rng.random((5, 128)).astype(np.float32) * 200
    descriptors[3] = 0
    rooted = sift.root(descriptors)
    one, other = (descriptors[n] / descriptors[n].sum() for n in (0, 1))
    np.testing.assert_allclose(rooted[0] @ rooted[1], np.sqrt(one * other).sum(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rooted, axis=1), [1, 1, 1, 0, 1], rtol=1e-5)
    assert sift.root(descriptors[:0]).shape == (0, 128)
