import jax
import numpy as np
import pytest

from delg_jax.features import selection
from delg_jax.features.local_features import LocalFeatures

# Compiled as a whole, as at the end of the network
suppress = jax.jit(selection.suppress, static_argnums=2)
top_cells = jax.jit(selection.top_cells, static_argnums=2)


def reference_top(scores, mask, count, threshold):
    """Positions of one map by a stable sort."""
    flat, usable = scores.ravel(), (mask & (scores >= threshold)).ravel()
    return [i for i in np.argsort(-flat, kind="stable") if usable[i]][:count]


def reference_suppression(scores, mask, radius):
    """Positions of one map that no better one, or equal and earlier one, is near."""
    kept = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        best = True
        for v, u in np.argwhere(mask):
            near = max(abs(v - y), abs(u - x)) <= radius
            better = scores[v, u] > scores[y, x]
            earlier = scores[v, u] == scores[y, x] and (v, u) < (y, x)
            best = best and not (near and (better or earlier))
        kept[y, x] = best
    return kept


def level(scores, scale=1.0):
    """Features of a level whose other fields tell where they came from."""
    count = len(scores)
    return LocalFeatures(
        locations=np.stack([np.arange(count), np.full(count, scale)], 1).astype(np.float32),
        scales=np.full(count, scale, np.float32),
        scores=np.asarray(scores, np.float32),
        descriptors=np.full((count, 2), scale, np.float32),
        mask=np.ones(count, bool),
    )


def test_a_map_by_hand():
    scores = np.array([[[0.1, 0.9, 0.3], [0.9, 0.5, 0.7]]], np.float32)
    mask = np.array([[[True, True, True], [True, True, False]]])
    cells, values, valid = map(np.asarray, top_cells(scores, mask, 6, 0.3))
    assert valid.tolist() == [[True] * 4 + [False] * 2]
    assert cells[0, :4].tolist() == [1, 3, 4, 2]  # the tie in reading order
    np.testing.assert_allclose(values[0], [0.9, 0.9, 0.5, 0.3, 0, 0])


@pytest.mark.parametrize("count", [1, 7, 30])
def test_equals_a_stable_sort_on_random_maps(rng, count):
    scores = rng.integers(0, 12, (5, 5, 6)).astype(np.float32)
    mask = rng.random(scores.shape) < 0.7
    cells, values, valid = map(np.asarray, top_cells(scores, mask, count, 3.0))
    for i in range(len(scores)):
        expected = reference_top(scores[i], mask[i], count, 3.0)
        assert cells[i, : len(expected)].tolist() == expected
        assert valid[i].tolist() == [True] * len(expected) + [False] * (count - len(expected))
        np.testing.assert_array_equal(values[i, : len(expected)], scores[i].ravel()[expected])


def test_a_wholly_masked_map_has_no_features():
    maps = np.ones((2, 3, 3), np.float32)
    _, values, valid = top_cells(maps, np.zeros((2, 3, 3), bool), 4, 0.0)
    assert not np.any(valid)
    assert not np.any(values)


def test_suppression_by_hand():
    scores = np.array([[[5, 5, 1, 2], [0, 9, 9, 1]]], np.float32)
    mask = np.array([[[True, True, True, True], [True, False, True, True]]])
    kept = suppress(scores, mask, 1)
    assert np.asarray(kept).astype(int).tolist() == [[[1, 0, 0, 0], [0, 0, 1, 0]]]


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize("shape", [(5, 7), (1, 6), (8, 1)])
def test_suppression_equals_the_reference(rng, shape, radius):
    scores = rng.integers(0, 5, (3, *shape)).astype(np.float32)
    mask = rng.random(scores.shape) < 0.8
    kept = np.asarray(suppress(scores, mask, radius))
    for one, score, inside in zip(kept, scores, mask, strict=True):
        expected = reference_suppression(score, inside, radius) if radius else inside
        np.testing.assert_array_equal(one, expected)


def test_suppression_of_equal_scores_keeps_the_first():
    for value in (0.0, 3.0):
        kept = suppress(np.full((1, 4, 4), value, np.float32), np.ones((1, 4, 4), bool), 9)
        assert np.argwhere(kept).tolist() == [[0, 0, 0]]
    nothing = np.zeros((1, 4, 4), bool)
    for radius in (1, 9):
        assert not np.any(suppress(np.ones((1, 4, 4), np.float32), nothing, radius))


def test_suppression_does_not_depend_on_the_canvas(rng):
    scores = rng.random((1, 9, 11), np.float32)
    mask = np.zeros(scores.shape, bool)
    mask[:, :6, :7] = True
    alone = suppress(scores[:, :6, :7], mask[:, :6, :7], 2)
    found = np.asarray(suppress(scores, mask, 2))
    np.testing.assert_array_equal(found[:, :6, :7], alone)


def test_merge_keeps_the_best_of_all_levels():
    merged = selection.merge([level([5, 3, 1], 2.0), level([4, 3, 2], 1.0)], 4)
    assert merged.scores.tolist() == [5, 4, 3, 3]
    assert merged.scales.tolist() == [2, 1, 2, 1]  # the tie keeps the order of the levels
    assert merged.locations[:, 0].tolist() == [0, 0, 1, 1]
    assert merged.descriptors[:, 0].tolist() == [2, 1, 2, 1]
    assert merged.mask.all()


def test_merge_pads_with_zeros_what_is_missing():
    few = level([2, 9, 1])._replace(mask=np.array([True, False, True]))
    merged = selection.merge([few], 5)
    assert merged.mask.tolist() == [True, True, False, False, False]
    assert merged.scores.tolist() == [2, 1, 0, 0, 0]
    assert not any(field[2:].any() for field in merged)
    assert merged.descriptors.shape == (5, 2)


def test_merge_does_not_depend_on_padding(rng):
    full = level(rng.random(9))
    padded = LocalFeatures(*(np.concatenate([field, field]) for field in full))
    padded = padded._replace(mask=np.arange(18) < 9)
    for a, b in zip(selection.merge([full], 6), selection.merge([padded], 6), strict=True):
        np.testing.assert_array_equal(a, b)


def test_merge_needs_a_level():
    with pytest.raises(ValueError, match="levels"):
        selection.merge([], 3)


def test_merge_gives_the_same_on_the_device(rng):
    levels = [
        level(rng.integers(0, 5, size), scale)._replace(mask=rng.random(size) < 0.6)
        for size, scale in ((9, 2.0), (4, 1.0), (7, 0.5))
    ]
    for count in (3, 8, 40):
        expected = selection.merge(levels, count)
        on_device = jax.jit(selection.merge, static_argnums=1)(levels, count)
        for a, b in zip(on_device, expected, strict=True):
            assert isinstance(a, jax.Array)
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
