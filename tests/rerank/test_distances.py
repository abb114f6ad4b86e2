import numpy as np
import pytest

from delg_jax.rerank.distances import (
    FORMS,
    MISSING,
    above,
    distances,
    kth_largest,
    scaled_by_neighbours,
)

# Pairs of contrast 1/2: mean 1/4, above the contrast, 0 (or missing), one-sided
PAIRS = np.array(
    [[0.1, 0.5, 0.9, 0], [0, 0.3, 0, 0.375], [0.8, 0.25, 0, 0], [0, 0, 0, 0]], np.float32
)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("chord", [[0, 1, 0, 2**0.5], [1, 0, 1.5**0.5, 1.25**0.5]]),
        ("complement", [[0, 0.5, 0, 1], [0.5, 0, 0.75, 0.625]]),
        ("reciprocal", [[0, 2, 1, 4], [2, 0, 4, 8 / 3]]),
        ("power", [[0, 0.25, 0, 1], [0.25, 0, 0.5625, 0.390625]]),
    ],
)
def test_by_hand(form, expected):
    found = distances(PAIRS, form, 0.5, power=2.0)
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    np.testing.assert_allclose(found, found.T)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("zero", [[0, 0.5, 0, 1], [0.5, 0, 0.75, 0.625]]),
        # One-sided pairs take their one side: 1/2, 1/4, 3/8; 0-3 gets the largest, that of 1-2
        ("largest", [[0, 0, 0, 0.5], [0, 0, 0.5, 0.25]]),
        # Least of the rows: 1/2, 3/8, 1/4, 0
        ("row_minimum", [[0, 0.125, 0, 0.5], [0.125, 0, 0.375, 0.625]]),
    ],
)
def test_rules_of_missing_pairs_by_hand(missing, expected):
    found = distances(PAIRS, "complement", 0.5, missing=missing, known=PAIRS > 0)
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    np.testing.assert_allclose(found, found.T)


@pytest.mark.parametrize("missing", MISSING)
def test_a_known_similarity_may_be_zero(missing):
    # All are known, so that no rule changes a number
    expected = distances(PAIRS, "complement", 0.5)
    for known in (None, np.ones((4, 4), bool)):
        found = distances(PAIRS, "complement", 0.5, missing=missing, known=known)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("missing", "expected"),
    # Of pair 0-1 one direction is 0 and known, the other missing; 0-2 is 1/2 in both, 1-2 missing
    [("zero", [1, 0.5, 1]), ("largest", [1, 0.5, 1]), ("row_minimum", [1, 0.5, 0.75])],
)
def test_a_value_of_nothing_is_not_missing_by_hand(missing, expected):
    pairs = np.array([[0, 0, 0.5], [0, 0, 0], [0.5, 0, 0]], np.float32)
    known = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    found = np.asarray(distances(pairs, "complement", 1.0, missing=missing, known=known))
    np.testing.assert_allclose(found[np.triu_indices(3, 1)], expected, atol=1e-6)


def test_missing_values_have_no_number():
    known = ~np.eye(4, dtype=bool)[:, [1, 0, 2, 3]]
    expected = distances(np.where(known, PAIRS, 0), "chord", 0.5, known=known)
    found = distances(np.where(known, PAIRS, 7), "chord", 0.5, known=known)
    np.testing.assert_array_equal(found, expected)


def test_background_similarity_counts_as_zero():
    matrix = np.array([[0, 0.2, 0.3], [0.2, 0, 0.5], [0.3, 0.5, 0]], np.float32)
    found = distances(matrix, "complement", 0.6, background=0.2)
    np.testing.assert_allclose(found, [[0, 1, 0.75], [1, 0, 0.25], [0.75, 0.25, 0]], atol=1e-6)


def test_each_image_has_its_own_background():
    found = above(np.array([[0.2, 0.6, 1.0], [0.75, 0.5, 0.0]]), np.array([0.2, 0.5]))
    np.testing.assert_allclose(found, [[0, 0.5, 1], [0.5, 0, 0]], atol=1e-6)
    assert (above(np.ones((1, 2)), np.ones(1)) == 0).all()
    nothing = np.array([[0.5, -np.inf]]), np.array([-np.inf])  # of a list that ends in no images
    assert above(*nothing).tolist() == [[0.5, 0]]


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("form", FORMS)
def test_falls_with_similarity_and_is_finite(form, missing):
    matrix = np.full((3, 3), 0.05, np.float32)
    found = []
    for value in (0.0, 1e-30, 0.1, 0.3, 0.6, 2.0):
        matrix[0, 1] = matrix[1, 0] = value
        found.append(float(distances(matrix, form, 0.6, 0.01, 0.5, missing)[0, 1]))
    assert np.isfinite(found).all()
    assert found[0] == found[1]
    assert found[1] >= found[2] > found[3] > found[4] == found[5]


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_known_gives_one_distance(form, missing):
    nothing = np.zeros((4, 4), np.float32)
    found = np.asarray(distances(nothing, form, 0.6, missing=missing, known=nothing > 0))
    apart = found[~np.eye(4, dtype=bool)]
    assert np.isfinite(apart).all()
    assert (apart == apart[0]).all()
    assert apart[0] > 0
    np.testing.assert_array_equal(np.diag(found), 0)
    assert distances(np.zeros((1, 1), np.float32), form, 0.6, missing=missing).tolist() == [[0]]


@pytest.mark.parametrize("missing", MISSING)
def test_renaming_images_renames_distances(rng, missing):
    matrix, known = rng.random((9, 9)).astype(np.float32), rng.random((9, 9)) < 0.5
    order = rng.permutation(9)
    rules = {"missing": missing, "known": known[order][:, order]}
    found = distances(matrix[order][:, order], "chord", 0.8, 0.1, **rules)
    expected = np.asarray(distances(matrix, "chord", 0.8, 0.1, missing=missing, known=known))
    np.testing.assert_allclose(found, expected[order][:, order], atol=1e-6)


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="'euclidean'.*chord, complement, reciprocal, power"):
        distances(np.zeros((2, 2), np.float32), "euclidean", 1.0)
    with pytest.raises(ValueError, match="'mean'.*zero, largest, row_minimum"):
        distances(np.zeros((2, 2), np.float32), "chord", 1.0, missing="mean")


def reference_scaled(similarities, images, count, known):
    """Similarities divided by the scales of both images, one image at a time."""
    size = len(similarities)
    scales = np.ones(size)
    for one in range(size):
        others = [other for other in range(size) if other != one and images[one] and images[other]]
        both = [
            (
                similarities[one, other] * known[one, other]
                + similarities[other, one] * known[other, one]
            )
            / 2
            for other in others
        ]
        best = sorted(both, reverse=True)[:count]
        if best and sum(best) > 0:
            scales[one] = sum(best) / len(best)
    return similarities / np.sqrt(np.outer(scales, scales))


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("size", [1, 2, 9])
def test_scaled_similarities_equal_the_reference(rng, size, count):
    similarities = rng.random((size, size)).astype(np.float32)
    known, images = rng.random((size, size)) < 0.7, np.arange(size) < max(size - 2, 1)
    found = scaled_by_neighbours(similarities, images, count, known)
    expected = reference_scaled(similarities, images, count, known)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scaled_similarities_forget_the_scale_of_an_image(rng):
    similarities = rng.random((8, 8)).astype(np.float32)
    similarities = (similarities + similarities.T) / 2
    images = np.ones(8, bool)
    found = scaled_by_neighbours(5 * similarities, images, 3)
    np.testing.assert_allclose(found, scaled_by_neighbours(similarities, images, 3), rtol=1e-5)
    order = rng.permutation(8)
    turned = scaled_by_neighbours(similarities[np.ix_(order, order)], images, 3)
    expected = np.asarray(scaled_by_neighbours(similarities, images, 3))[np.ix_(order, order)]
    np.testing.assert_allclose(turned, expected, rtol=1e-5)
    np.testing.assert_array_equal(scaled_by_neighbours(0 * similarities, images, 3), 0)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_kth_largest_is_that_of_sorting(rng, count):
    values = rng.random((6, 7)).astype(np.float32) ** 20
    values[1], values[2, ::2], values[3, :5] = 0, 0, values[3, 0]
    values[4] = np.float32([0, 1e-45, 1e-38, 1, np.finfo(np.float32).max, np.inf, 3])
    expected = np.sort(values, axis=1)[:, ::-1][:, count - 1]
    np.testing.assert_array_equal(kth_largest(values, count), expected)
