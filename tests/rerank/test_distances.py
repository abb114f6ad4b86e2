import jax
import numpy as np
import pytest

from delg_jax.rerank.distances import (
    FORMS,
    MISSING,
    above,
    distances,
    kernel_scores,
    kth_largest,
    profiles,
    refine,
    scaled_by_neighbours,
)
from delg_jax.rerank.mds import MdsSettings, scores

# Pairs of contrast 1/2: mean 1/4, above the contrast, 0 (or missing), one-sided
PAIRS = np.array(
    [[0.1, 0.5, 0.9, 0], [0, 0.3, 0, 0.375], [0.8, 0.25, 0, 0], [0, 0, 0, 0]], np.float32
)


ALL_KNOWN = np.ones((4, 4), bool)


def of_pairs(pairs, form="complement", missing="zero", known=ALL_KNOWN):
    """`distances` of four images with these options alone, because each option compiles."""
    return np.asarray(distances(pairs, form, 0.5, 0.0, 2.0, missing, known))


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
    found = of_pairs(PAIRS, form)
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
    found = of_pairs(PAIRS, missing=missing, known=PAIRS > 0)
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    np.testing.assert_allclose(found, found.T)


@pytest.mark.parametrize("missing", MISSING)
def test_a_known_similarity_may_be_zero(missing):
    # All are known, so that no rule changes a number
    np.testing.assert_array_equal(of_pairs(PAIRS, missing=missing), of_pairs(PAIRS))


def test_without_a_mask_all_are_known():
    found = distances(PAIRS, "complement", 0.5, missing="largest")
    np.testing.assert_array_equal(found, of_pairs(PAIRS))


@pytest.mark.parametrize(
    ("missing", "expected"),
    # Of pair 0-1 one direction is 0 and known, the other missing; 0-2 is 1/2 in both, 1-2 missing
    [("zero", [1, 0.5, 1]), ("largest", [1, 0.5, 1]), ("row_minimum", [1, 0.5, 0.75])],
)
def test_a_value_of_nothing_is_not_missing_by_hand(missing, expected):
    pairs, known = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
    pairs[0, 2] = pairs[2, 0] = 0.25  # half of the contrast
    known[0, 1] = known[0, 2] = known[2, 0] = True
    found = of_pairs(pairs, missing=missing, known=known)
    np.testing.assert_allclose(found[:3, :3][np.triu_indices(3, 1)], expected, atol=1e-6)


def test_missing_values_have_no_number():
    known = ~np.eye(4, dtype=bool)[:, [1, 0, 2, 3]]
    expected = of_pairs(np.where(known, PAIRS, 0), "chord", known=known)
    found = of_pairs(np.where(known, PAIRS, 7).astype(np.float32), "chord", known=known)
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
    matrix = np.full((4, 4), 0.05, np.float32)
    found = []
    for value in (0.0, 1e-30, 0.1, 0.3, 0.6, 2.0):
        matrix[0, 1] = matrix[1, 0] = value
        found.append(float(of_pairs(matrix, form, missing)[0, 1]))
    assert np.isfinite(found).all()
    assert found[0] == found[1]
    assert found[1] >= found[2] > found[3] > found[4] == found[5]


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_known_gives_one_distance(form, missing):
    nothing = np.zeros((4, 4), np.float32)
    found = of_pairs(nothing, form, missing, nothing > 0)
    apart = found[~np.eye(4, dtype=bool)]
    assert np.isfinite(apart).all()
    assert (apart == apart[0]).all()
    assert apart[0] > 0
    np.testing.assert_array_equal(np.diag(found), 0)


def test_an_image_alone_has_no_distance():
    alone = np.zeros((1, 1), np.float32)
    assert distances(alone, "reciprocal", 0.6, missing="largest").tolist() == [[0]]


@pytest.mark.parametrize("missing", MISSING)
def test_renaming_images_renames_distances(rng, missing):
    for order in ([2, 0, 3, 1], [1, 2, 3, 0], [3, 1, 0, 2]):
        matrix, known = rng.random((4, 4)).astype(np.float32), rng.random((4, 4)) < 0.6
        found = of_pairs(matrix[order][:, order], "chord", missing, known[order][:, order])
        expected = of_pairs(matrix, "chord", missing, known)
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


@pytest.mark.parametrize(("count", "size"), [(1, 9), (3, 9), (40, 9), (3, 1)])
def test_scaled_similarities_equal_the_reference(rng, size, count):
    similarities = rng.random((size, size)).astype(np.float32)
    known = rng.random((size, size)) < 0.7
    for present in sorted({1, min(2, size), max(size - 2, 1), size}):
        images = np.arange(size) < present
        found = scaled_by_neighbours(similarities, images, count, known)
        expected = reference_scaled(similarities, images, count, known)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scaled_similarities_forget_the_scale_of_an_image(rng):
    similarities = rng.random((9, 9)).astype(np.float32)
    similarities = (similarities + similarities.T) / 2

    def scaled(values):
        found = scaled_by_neighbours(values, np.ones(9, bool), 3, np.ones((9, 9), bool))
        return np.asarray(found)

    expected = scaled(similarities)
    np.testing.assert_allclose(scaled(5 * similarities), expected, rtol=1e-5)
    order = np.ix_(*[rng.permutation(9)] * 2)
    np.testing.assert_allclose(scaled(similarities[order]), expected[order], rtol=1e-5)
    np.testing.assert_array_equal(scaled(0 * similarities), 0)
    found = scaled_by_neighbours(similarities, np.ones(9, bool), 3)  # all are known
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count", [2, 7])
def test_the_kth_largest_is_that_of_sorting(rng, count):
    values = rng.random((6, 7)).astype(np.float32) ** 20
    values[1], values[2, ::2], values[3, :5] = 0, 0, values[3, 0]
    values[4] = np.float32([0, 1e-45, 1e-38, 1, np.finfo(np.float32).max, np.inf, 3])
    expected = np.sort(values, axis=1)[:, ::-1][:, count - 1]
    np.testing.assert_array_equal(kth_largest(values, count), expected)


FORMS = (
    {"method": "profile", "dim": 5, "neighbours": 2, "beta": 1.0},
    {"method": "profile", "dim": 30, "neighbours": 0},
    {"method": "profile", "dim": 12, "neighbours": 2, "scale_neighbours": 3, "contrast": 1.5},
    {"method": "kernel", "neighbours": 3, "beta": 0.6},
    {"method": "kernel", "neighbours": 0},
)


def symmetric(rng, size):
    """Similarities of which half are 0."""
    values = np.triu(rng.random((size, size)) * (rng.random((size, size)) < 0.5), 1)
    return (values + values.T + np.eye(size)).astype(np.float32)


def unit(vectors):
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def nearest_others(similarities, count):
    """The `count` nearest others of each image, and those as near as the last."""
    for row, values in enumerate(similarities):
        others = np.delete(np.arange(len(values)), row)
        order = others[np.argsort(-values[others], kind="stable")]
        least = values[order[min(count, len(order)) - 1]] if count and len(order) else np.inf
        yield row, others[values[others] >= least]


def reference_profiles(similarities, count):
    result = np.zeros(similarities.shape)
    for row, values in enumerate(similarities):
        kept = values >= np.sort(values)[::-1][min(count, len(values)) - 1]
        result[row, kept] = values[kept]
    return unit(result)


def reference_refined(vectors, similarities, count, beta):
    result = np.array(vectors, np.float64)
    for row, others in nearest_others(similarities, count):
        for other in others:
            result[row] += beta * similarities[row, other] * vectors[other]
    return unit(result)


def reference_kernel(similarities, count, beta):
    """SuperGlobal on explicit vectors whose inner products are the similarities."""
    values, axes = np.linalg.eigh(similarities.astype(np.float64))
    points = axes * np.sqrt(values)
    query, images = points[0], points[1:]
    pairs = images @ images.T
    refined = images.copy()
    for row, others in nearest_others(pairs, count):
        refined[row] += beta * (np.maximum(pairs[row, others], 0)[:, None] * images[others]).sum(0)
    refined = unit(refined)
    first = refined @ query
    best = np.argsort(-first, kind="stable")[: count + 1]
    return 0.5 * (first + refined @ unit(refined[best].mean(axis=0)))


@pytest.mark.parametrize(("count", "size"), [(1, 11), (4, 11), (40, 11), (4, 1)])
def test_profiles_equal_the_reference(rng, size, count):
    similarities = symmetric(rng, size)
    found = profiles(similarities, count)
    np.testing.assert_allclose(found, reference_profiles(similarities, count), atol=1e-6)


@pytest.mark.parametrize(("count", "size"), [(0, 11), (4, 11), (40, 11), (4, 1)])
def test_refined_vectors_equal_the_reference(rng, size, count):
    similarities, vectors = symmetric(rng, size), rng.normal(size=(size, 6)).astype(np.float32)
    found = refine(vectors, similarities, count, 0.7)
    expected = reference_refined(vectors, similarities, count, 0.7)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(0, 13), (4, 13), (4, 5)])
def test_the_kernel_is_superglobal_on_vectors_with_these_products(rng, size, count):
    points = unit(rng.random((size, 20)))
    similarities = (points @ points.T).astype(np.float32)
    found = kernel_scores(similarities, count, 0.4)
    np.testing.assert_allclose(found, reference_kernel(similarities, count, 0.4), atol=2e-5)


def settings(form, **more):
    return MdsSettings(**{"contrast": 0.8, "weight": 0.6, **form, **more})


def of_lists(form, similarities, mask=None, *more):
    """Scores of a list of eight images, one shape for all tests; the query is in row 0."""
    assert similarities.shape == (9, 9)
    mask = np.ones(8, bool) if mask is None else mask
    found = scores(similarities[0, 1:], similarities[1:, 1:], mask, settings(form), *more)
    return np.asarray(found)


# A profile, a scaled one, and a kernel; the others leave out a step of theirs
KINDS = (FORMS[0], FORMS[2], FORMS[3])
EVERY = (*KINDS, *(pytest.param(form, marks=pytest.mark.slow) for form in (FORMS[1], FORMS[4])))


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_scores_are_invariant_to_the_order_of_the_images(rng, form):
    similarities = symmetric(rng, 9)  # many are 0, and some 1 after scaling
    order = rng.permutation(8)
    turned = np.concatenate([[0], 1 + order])
    found = of_lists(form, similarities)
    np.testing.assert_allclose(
        of_lists(form, similarities[np.ix_(turned, turned)]), found[order], atol=1e-5
    )


def test_scaled_scores_do_not_depend_on_the_unit_of_similarities(rng):
    similarities = symmetric(rng, 9)
    fixed, scaled = FORMS[0], FORMS[2]
    np.testing.assert_allclose(
        of_lists(scaled, 0.03 * similarities), of_lists(scaled, similarities), atol=1e-5
    )
    change = of_lists(fixed, 0.03 * similarities) - of_lists(fixed, similarities)
    assert np.abs(change).max() > 0.1


def test_the_best_match_keeps_its_place_however_similar(rng):
    # Two images above the contrast: with a fixed one, both count as 1
    to_query = np.array([0.9, 0.85, 0.4], np.float32)
    pairs = np.array([[1, 0, 0], [0, 1, 0.4], [0, 0.4, 1]], np.float32)
    form = {"method": "profile", "dim": 4, "weight": 0.5}
    first = scores(to_query, pairs, np.ones(3, bool), MdsSettings(contrast=0.4, **form))
    assert np.argmax(np.asarray(first)) == 1
    scaled = MdsSettings(contrast=1.5, scale_neighbours=2, **form)
    assert np.argmax(np.asarray(scores(to_query, pairs, np.ones(3, bool), scaled))) == 0


@pytest.mark.parametrize("form", KINDS, ids=str)
def test_scores_with_descriptors_are_invariant_to_a_rotation(rng, form):
    similarities = symmetric(rng, 9)
    descriptors = unit(rng.normal(size=(9, 7))).astype(np.float32)
    rotation, _ = np.linalg.qr(rng.normal(size=(7, 7)))
    found = of_lists(form, similarities, None, descriptors)
    turned = of_lists(form, similarities, None, (descriptors @ rotation).astype(np.float32))
    np.testing.assert_allclose(turned, found, atol=1e-5)
    assert (np.abs(found - of_lists(form, similarities)) > 1e-3).any()


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_padding_changes_nothing(rng, form):
    similarities = symmetric(rng, 7)
    expected = scores(similarities[0, 1:], similarities[1:, 1:], np.ones(6, bool), settings(form))
    padded = np.pad(similarities, (0, 2), constant_values=0.9)
    found = of_lists(form, padded, np.arange(8) < 6)
    np.testing.assert_allclose(found[:6], expected, atol=1e-6)
    assert (found[6:] == -np.inf).all()


@pytest.mark.parametrize("form", EVERY, ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_unrelated_and_equal_images_stay_finite(form, value):
    pairs = np.full((9, 9), value, np.float32)
    assert np.isfinite(of_lists(form, pairs)).all()
    assert (of_lists(form, pairs, np.zeros(8, bool)) == -np.inf).all()
    if form in KINDS:
        one = scores(pairs[0, :1], pairs[:1, :1], np.ones(1, bool), settings(form))
        assert np.isfinite(one).all()
        assert np.isfinite(of_lists(form, pairs, None, None, np.zeros((8, 8), bool))).all()


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_duplicates_get_equal_scores(rng, form):
    similarities = symmetric(rng, 9)
    similarities[8], similarities[:, 8] = similarities[7], similarities[:, 7]
    similarities[8, 8] = similarities[7, 8] = similarities[8, 7] = 1.0
    found = of_lists(form, similarities)
    np.testing.assert_allclose(found[6], found[7], atol=1e-5)


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_an_image_is_found_through_others_of_its_place(rng, form):
    """The query matches half of its place; the other half matches only the first half."""
    place = np.repeat([0, 1, 2], 12)
    pairs = np.where(place[:, None] == place[None, :], 0.5, 0.0) + rng.uniform(0, 0.1, (36, 36))
    pairs = (0.5 * (pairs + pairs.T)).astype(np.float32)
    to_query = rng.uniform(0, 0.1, 36).astype(np.float32)
    to_query[:6] = 0.5
    to_query[12:15] = 0.15  # images of another place that match the query a little
    found = np.asarray(scores(to_query, pairs, np.ones(36, bool), settings(form)))
    first = np.argsort(-found, kind="stable")[:12]
    assert set(first) == set(range(12))
    assert set(np.argsort(-to_query, kind="stable")[:12]) != set(range(12))


@pytest.mark.parametrize("form", KINDS[1:], ids=str)
def test_scores_batch_over_queries(rng, form):
    similarities = np.stack([symmetric(rng, 9) for _ in range(3)])
    batched = jax.jit(jax.vmap(lambda s, p, m: scores(s, p, m, settings(form))))
    found = batched(similarities[:, 0, 1:], similarities[:, 1:, 1:], np.ones((3, 8), bool))
    found = np.asarray(found)
    for row, one in zip(found, similarities, strict=True):
        np.testing.assert_allclose(row, of_lists(form, one), atol=1e-5)
