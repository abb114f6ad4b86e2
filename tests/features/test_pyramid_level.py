import jax
import numpy as np
import pytest

from delg_jax.features import pyramid, pyramid_level
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.models.delg import build
from tests.photographs import draw
from tests.tiny import random_variables, retrieval_config

SIZE, SCALE, COUNT = (40, 56), 1.4142135, 12


@pytest.fixture(scope="module")
def model():
    module = build(retrieval_config("unused").model)
    return module, random_variables(module)


def run(model, source, shape, **options):
    images = pyramid.place([draw(0, *SIZE)], source)
    target = np.array([pyramid.scaled_size(SIZE, SCALE)], np.int32)
    resized = pyramid.resize(images, np.array([SIZE], np.int32), target, shape)
    asked = {"count": COUNT, "pooled": True, **options}
    return pyramid_level.extract_level(*model, None, resized, target, **asked)


def found(model, source, shape):
    result = run(model, source, shape)
    return result, pyramid_level.local_features(result, 0, shape, model[0].conv4_stride, SCALE)


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


def test_features_not_asked_for_are_absent_and_others_unchanged(model):
    both = run(model, (64, 64), (64, 128))
    pooled = run(model, (64, 64), (64, 128), count=0)
    assert pooled[1:] == (None,) * 4
    np.testing.assert_allclose(pooled.global_descriptor, both.global_descriptor, atol=1e-6)
    local = run(model, (64, 64), (64, 128), pooled=False)
    assert local.global_descriptor is None
    np.testing.assert_array_equal(local.cells, both.cells)
    np.testing.assert_allclose(local.descriptors, both.descriptors, atol=1e-6)


def test_conv5_is_computed_only_for_a_global_descriptor(model):
    def operations(**options):
        image, size = np.zeros((1, 64, 64, 3), np.float32), np.array([[64, 64]], np.int32)
        return pyramid_level.extract_level.lower(
            *model, None, image, size, **options
        ).cost_analysis()["flops"]

    everything = operations(count=COUNT, pooled=True)
    assert operations(count=COUNT, pooled=False) < 0.95 * everything
    assert operations(count=0, pooled=True) < everything


def test_suppressed_positions_are_not_found(model):
    target = pyramid.scaled_size(SIZE, SCALE)
    result = run(model, (64, 64), (64, 96), count=24, nms_radius=1)
    cells = np.stack(np.divmod(result.cells[0][result.valid[0]], 96 // 16), axis=1)
    assert 0 < len(cells) < (target[0] // 16) * (target[1] // 16)
    apart = np.abs(cells[:, None] - cells[None]).max(axis=2) + 9 * np.eye(len(cells))
    assert apart.min() > 1


def test_local_features_by_hand():
    values = pyramid_level.Level(
        global_descriptor=np.zeros((2, 1), np.float32),
        cells=np.array([[0, 0, 0], [0, 5, 3]], np.int32),
        scores=np.array([[0, 0, 0], [3, 2, 1]], np.float32),
        descriptors=np.arange(6, dtype=np.float32).reshape(2, 3, 1),
        valid=np.array([[False] * 3, [True, True, False]]),
    )
    for convert in (np.asarray, jax.numpy.asarray):
        local = pyramid_level.local_features(jax.tree.map(convert, values), 1, (32, 64), 16, 2.0)
        assert type(local.locations) is type(local.scales) is type(convert(0.0))
        np.testing.assert_array_equal(local.locations, [[0, 0], [8, 8], [0, 24]])
        np.testing.assert_array_equal(local.scales, [0.5, 0.5, 0.5])
        np.testing.assert_array_equal(local.scores, [3, 2, 1])
        np.testing.assert_array_equal(local.descriptors, [[3], [4], [5]])
        np.testing.assert_array_equal(local.mask, [True, True, False])


def test_scales_are_asked_for_once_in_ascending_order(model):
    settings = ExtractionSettings((2.0, 0.5), (1.0, 2.0, 1.0), max_features=30)
    module = model[0]
    assert pyramid_level.plan(module, settings) == [
        (0.5, 30, False),
        (1.0, 0, True),
        (2.0, 30, True),
    ]
    bare = module.clone(local_head=False)
    assert pyramid_level.plan(bare, settings) == [(1.0, 0, True), (2.0, 0, True)]


def test_the_average_is_that_of_the_directions():
    one, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    for convert in (np.asarray, jax.numpy.asarray):
        mean = pyramid_level.pool_scales([convert(one), convert(other), convert(one)])
        np.testing.assert_allclose(mean, np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
        assert mean.dtype == np.float32
    np.testing.assert_array_equal(pyramid_level.pool_scales([one, -one]), [0, 0])


@pytest.mark.parametrize(("stride", "scale"), [(16, 1.0), (32, 0.5), (32, 1.4142135)])
def test_centres_and_boxes_are_the_official_ones(rng, stride, scale):
    cells = rng.integers(0, 40, (20, 2))
    low = (stride * cells - 145) / scale  # the official box: [low, low + 290 / scale]
    expected = np.concatenate([low, low + 290 / scale], axis=1)
    centres = pyramid_level.centres(cells, stride, scale)
    boxes = pyramid_level.boxes(centres, np.full(20, 1 / scale, np.float32))
    np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(centres, (expected[:, :2] + expected[:, 2:]) / 2, atol=1e-3)


def test_the_first_position_looks_at_the_corner():
    centres = pyramid_level.centres(np.array([[0, 0], [1, 2]]), 16, 2.0)
    assert centres.tolist() == [[0, 0], [8, 16]]
    assert centres.dtype == np.float32


def test_patches_are_located_at_their_centres():
    centres = pyramid_level.centres(np.array([[0, 0], [1, 2]]), 14, 2.0, 6.5)
    assert centres.tolist() == [[3.25, 3.25], [10.25, 17.25]]


def test_no_positions_have_no_boxes():
    none = pyramid_level.centres(np.zeros((0, 2), int), 16, 1.0)
    assert pyramid_level.boxes(none, np.zeros(0, np.float32)).shape == (0, 4)
