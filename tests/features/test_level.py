import jax
import numpy as np
import pytest

from delg_jax.features import level, pyramid
from delg_jax.models.delg import build
from tests.photographs import draw
from tests.tiny import random_variables, retrieval_config

SIZE, SCALE, COUNT = (40, 56), 1.4142135, 12


@pytest.fixture(scope="module")
def model():
    module = build(retrieval_config("unused").model)
    return module, random_variables(module)


def found(model, source, shape):
    images = pyramid.place([draw(0, *SIZE)], source)
    target = np.array([pyramid.scaled_size(SIZE, SCALE)], np.int32)
    sizes = np.array([SIZE], np.int32)
    result = level.compute(*model, None, images, sizes, target, shape, COUNT, 0.0)
    return result, level.local_features(result, 0, shape, model[0].conv4_stride, SCALE)


def test_neither_canvas_decides_a_feature(model):
    (small, expected), (large, features) = (
        found(model, (64, 64), (64, 128)),
        found(model, (96, 160), (160, 96)),
    )
    np.testing.assert_allclose(large.global_descriptor, small.global_descriptor, atol=1e-6)
    np.testing.assert_array_equal(features.mask, expected.mask)
    np.testing.assert_array_equal(features.locations, expected.locations)
    np.testing.assert_allclose(features.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(features.descriptors, expected.descriptors, atol=1e-6)


def test_local_features_by_hand():
    values = level.Level(
        global_descriptor=np.zeros((2, 1), np.float32),
        cells=np.array([[0, 0, 0], [0, 5, 3]], np.int32),
        scores=np.array([[0, 0, 0], [3, 2, 1]], np.float32),
        descriptors=np.arange(6, dtype=np.float32).reshape(2, 3, 1),
        valid=np.array([[False] * 3, [True, True, False]]),
    )
    for convert in (np.asarray, jax.numpy.asarray):
        local = level.local_features(jax.tree.map(convert, values), 1, (32, 64), 16, 2.0)
        assert type(local.locations) is type(local.scales) is type(convert(0.0))
        np.testing.assert_array_equal(local.locations, [[0, 0], [8, 8], [0, 24]])
        np.testing.assert_array_equal(local.scales, [0.5, 0.5, 0.5])
        np.testing.assert_array_equal(local.scores, [3, 2, 1])
        np.testing.assert_array_equal(local.descriptors, [[3], [4], [5]])
        np.testing.assert_array_equal(local.mask, [True, True, False])


def test_scales_are_asked_for_once_in_ascending_order(model):
    settings = retrieval_config("unused").extract.copy_and_resolve_references()
    settings.local_scales, settings.global_scales = (2.0, 0.5), (1.0, 2.0, 1.0)
    module = model[0]
    assert level.plan(module, settings) == [(0.5, 30, False), (1.0, 0, True), (2.0, 30, True)]
    bare = module.clone(local_head=False)
    assert level.plan(bare, settings) == [(1.0, 0, True), (2.0, 0, True)]


def test_the_average_is_that_of_the_directions():
    one, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    for convert in (np.asarray, jax.numpy.asarray):
        mean = level.average([convert(one), convert(other), convert(one)])
        np.testing.assert_allclose(mean, np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
        assert mean.dtype == np.float32
    np.testing.assert_array_equal(level.average([one, -one]), [0, 0])
