import importlib

import numpy as np
import pytest

from delg_jax.benchmarks.peers import libraries
from delg_jax.errors import UserError

MAKERS = {"cv2": libraries.opencv, "skimage": libraries.scikit_image}
VIEWS = {
    "affine": np.array([[0.9, 0.1, 5.0], [-0.2, 1.1, 3.0]]),
    "homography": np.array([[0.9, 0.1, 5.0], [-0.2, 1.1, 3.0], [1e-4, 2e-4, 1.0]]),
}


@pytest.mark.parametrize("model", list(VIEWS))
@pytest.mark.parametrize("package", list(MAKERS))
def test_a_planted_view_is_found(rng, package, model):
    pytest.importorskip(package, reason="the peer")
    source = rng.uniform(0, 300, (40, 2))
    target = np.concatenate([source, np.ones((40, 1))], axis=1) @ VIEWS[model].T
    target = target[:, :2] / (target[:, 2:] if model == "homography" else 1)
    target[:10] += rng.uniform(100, 200, (10, 2))
    inliers = MAKERS[package](model, 500, 2.0)
    assert inliers(source, target).tolist() == [False] * 10 + [True] * 30
    assert not inliers(source[10:13], target[10:13]).any()


def test_the_tree_finds_what_products_find(rng):
    query, image = rng.normal(size=(20, 4)), rng.normal(size=(30, 4))
    query, image = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, image))
    for distance in (0.3, 1.0):
        index, near = libraries.match_by_tree(query, image, distance)
        expected, expected_near = libraries.match(query, image, distance)
        np.testing.assert_array_equal(near, expected_near)
        np.testing.assert_array_equal(index[near], expected[near])


def test_a_missing_package_is_one_line(monkeypatch):
    def import_module(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(UserError, match=r"'opencv-python-headless': .*delg_jax\[bench\]"):
        libraries.opencv("affine", 10, 1.0)
