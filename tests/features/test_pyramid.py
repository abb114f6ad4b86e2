import collections
import itertools

import jax
import numpy as np
import pytest

from delg_jax.features import pyramid
from delg_jax.features.pyramid_level import LevelPlan

# As users compile it: without optimisations, a CPU computes a tap and its weight apart, with
# another rounding
RESIZE = jax.jit(
    pyramid.resize, static_argnums=3, compiler_options={"xla_backend_optimization_level": 3}
)


def reference_resize(image, target):
    """TensorFlow 2's bilinear resize: half-pixel centres, border repeated, no antialias."""
    result = np.asarray(image, np.float64)
    for axis, length in enumerate(target):
        size = result.shape[axis]
        position = (np.arange(length) + 0.5) * size / length - 0.5
        low = np.floor(position)
        share = np.expand_dims(position - low, tuple(i for i in range(3) if i != axis))
        first = result.take(np.clip(low, 0, size - 1).astype(int), axis)
        second = result.take(np.clip(low + 1, 0, size - 1).astype(int), axis)
        result = first * (1 - share) + second * share
    return result


def resize(images, targets, shape):
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    canvas = tuple(sizes.max(axis=0))
    placed = pyramid.place(images, canvas)
    return np.asarray(RESIZE(placed, sizes, np.array(targets, np.int32), shape))


def test_a_row_of_two_pixels_doubled_by_hand():
    image = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    found = resize([image], [(1, 4)], (1, 4))
    np.testing.assert_allclose(found[0, 0, :, 0], [0, 25, 75, 100])


def test_equals_the_reference_on_ragged_sizes(rng):
    sizes = [(37, 53), (64, 20), (1, 9), (50, 1), (33, 33)]
    targets = [(19, 26), (90, 28), (2, 13), (25, 1), (47, 47)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    found = resize(images, targets, (96, 64))
    for result, image, target in zip(found, images, targets, strict=True):
        expected = reference_resize(image, target)
        np.testing.assert_allclose(result[: target[0], : target[1]], expected, atol=1e-3)


def test_equal_size_changes_nothing(rng):
    image = rng.integers(0, 256, (31, 45, 3), dtype=np.uint8)
    found = resize([image], [(31, 45)], (32, 64))
    np.testing.assert_array_equal(found[0, :31, :45], image)


def test_padding_beside_the_image_does_not_leak_in(rng):
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    alone = resize([image], [(33, 47)], (40, 48))[0, :33, :47]
    sizes, targets = np.array([[20, 30]], np.int32), np.array([[33, 47]], np.int32)
    canvas = np.full((1, 64, 64, 3), 255, np.uint8)
    canvas[0, :20, :30] = image
    beside = np.asarray(RESIZE(canvas, sizes, targets, (40, 48)))[0, :33, :47]
    np.testing.assert_allclose(beside, alone, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((5, 7), 0.5, (2, 4)),  # 2.5 and 3.5, halves to even
        ((100, 200), 1.4142135, (141, 283)),
        ((99, 101), 0.70710677, (70, 71)),
        ((1, 3), 0.25, (1, 1)),  # never nothing
        ((640, 480), 1.0, (640, 480)),
    ],
)
def test_size_of_a_level(size, scale, expected):
    assert pyramid.scaled_size(size, scale) == expected


@pytest.mark.parametrize("step", [32, 64])
def test_canvases_are_few_and_little_larger_than_the_image(step):
    sides = range(1, 4097)
    canvases = [pyramid.canvas_shape((side, 2 * side), step)[0] for side in sides]
    for side, canvas in zip(sides, canvases, strict=True):
        assert canvas >= side
        assert canvas % step == 0
        assert canvas - side < max(step, side / 16)
    assert canvases == sorted(canvases)
    assert len(set(canvases)) <= 16 + 16 * np.log2(4096 / (16 * step))


def test_sides_of_a_canvas_are_independent():
    assert pyramid.canvas_shape((65, 128), 64) == (128, 128)
    assert pyramid.canvas_shape((64, 1025), 64) == (64, 1088)
    assert pyramid.canvas_shape((64, 2049), 64) == (64, 2176)


def test_canvases_of_images_are_powers_of_two():
    assert pyramid.source_shape((1, 2), 64) == (1, 2)
    assert pyramid.source_shape((384, 513), 64) == (512, 1024)
    assert [pyramid.power_of_two(n) for n in (0, 1, 2, 3, 4, 9)] == [1, 1, 2, 2, 4, 8]


def test_place_puts_images_top_left(rng):
    images = [rng.integers(1, 256, (h, w, 3), dtype=np.uint8) for h, w in ((2, 3), (4, 1))]
    canvas = pyramid.place(images, (4, 4))
    for row, image in zip(canvas, images, strict=True):
        np.testing.assert_array_equal(row[: image.shape[0], : image.shape[1]], image)
        assert np.count_nonzero(row) == image.size
    assert pyramid.place([], (4, 4)).shape == (0, 4, 4, 3)


SIZES = [(40, 56), (64, 64), (33, 61), (130, 70), (50, 50)]
PLANS = [LevelPlan(0.5, 9, False), LevelPlan(1.0, 9, True), LevelPlan(1.2, 9, True)]


def test_levels_of_one_canvas_go_together_by_hand():
    found = pyramid.arrange([(60, 60), (64, 32), (65, 10)], PLANS[1:], 64, 3 * 64 * 128)
    members = [[(m.image, m.plan.scale) for m in batch.members] for batch in found]
    # Batches of 3 would fit; 2 is the power of two below
    assert members == [[(0, 1.0), (1, 1.0)], [(2, 1.0), (1, 1.2)], [(2, 1.2)], [(0, 1.2)]]
    assert [batch.shape for batch in found] == [(64, 64), (128, 64), (128, 64), (128, 128)]


@pytest.mark.parametrize("pixels", [1, 64 * 64, 7 * 64 * 64, 10**9])
def test_every_image_meets_every_plan_once_without_filler(pixels):
    found = pyramid.arrange(SIZES, PLANS, 64, pixels)
    pairs = collections.Counter((m.image, m.plan) for batch in found for m in batch.members)
    assert pairs == {(i, plan): 1 for i in range(len(SIZES)) for plan in PLANS}
    for batch in found:
        count = len(batch.members)
        assert count & (count - 1) == 0
        assert count == 1 or count * batch.shape[0] * batch.shape[1] <= pixels
        for member in batch.members:
            assert all(t <= s for t, s in zip(member.target, batch.shape, strict=True))
            assert (member.plan.max_features, member.plan.pooled) == (
                batch.max_features,
                batch.pooled,
            )


def test_batch_sizes_of_a_canvas_are_few():
    for images in range(1, 70):
        found = pyramid.arrange([(64, 64)] * images, PLANS[1:2], 64, 16 * 64 * 64)
        counts = [len(batch.members) for batch in found]
        assert sum(counts) == images
        assert set(counts) <= {1, 2, 4, 8, 16}
        assert counts == sorted(counts, reverse=True)


def test_levels_that_ask_for_less_go_apart():
    found = pyramid.arrange(
        [(64, 64)], [LevelPlan(0.9, 9, True), LevelPlan(1.0, 0, True)], 64, 10**6
    )
    assert [(batch.max_features, batch.pooled) for batch in found] == [(9, True), (0, True)]
    assert pyramid.arrange([], PLANS, 64, 1) == []


def test_all_levels_of_all_images_are_on_eleven_canvases():
    sides = [*range(1, 1024, 29), 256, 257, 512, 513, 724, 725, 767, 768, 769, 1023, 1024]
    canvases = set()
    for size in itertools.product(sides, sides):
        source = pyramid.source_shape(size, 0)
        assert source[0] >= size[0]
        assert source[1] >= size[1]
        for scale in (0.70710677, 1.0, 1.4142135):
            level = pyramid.scaled_size(size, scale)
            canvas = pyramid.canvas_shape(level, 0)
            assert canvas[0] >= level[0]
            assert canvas[1] >= level[1]
            assert canvas[0] % 32 == canvas[1] % 32 == 0
            canvases.add(canvas)
    assert len(canvases) == 11
    # a photograph of 4:3 has no padding to speak of
    assert pyramid.canvas_shape((768, 1024), 0) == (768, 1024)
    assert pyramid.canvas_shape((1448, 1086), 0) == (1472, 1088)
    assert pyramid.canvas_shape((543, 724), 0) == (544, 736)
