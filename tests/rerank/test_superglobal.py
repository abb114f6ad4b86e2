import numpy as np
import pytest

from delg_jax.rerank import superglobal


def unit(array):
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def reference_refine(x, k, beta):
    similarities = x @ x.T
    refined = []
    for i, row in enumerate(similarities):
        others = [j for j in np.argsort(-row, kind="stable") if j != i][:k]
        weights = beta * row[others]
        refined.append((x[i] + weights @ x[others]) / (1 + weights.sum()))
    return np.array(refined)


def reference_scores(query, x, k, beta, pooling="maximum"):
    refined = reference_refine(x.astype(float), k, beta)
    first = refined @ query
    best = refined[np.argsort(-first, kind="stable")[: k + 1]]
    mean = best.mean(axis=0) / np.linalg.norm(best.mean(axis=0))
    return (first + refined @ (best.max(axis=0) if pooling == "maximum" else mean)) / 2


def reference(queries, database, ranks, top_m, k, beta):
    result = ranks.copy()
    for row, query in enumerate(queries.astype(float)):
        head = ranks[row, :top_m]
        scores = reference_scores(query, database[head], k, beta)
        result[row, :top_m] = head[np.argsort(-scores, kind="stable")]
    return result


def rotations(rng, dimension):
    """Random orthogonal matrices, and two that flip signs of axes alone."""
    drawn = [np.linalg.qr(rng.normal(size=(dimension,) * 2))[0] for _ in range(3)]
    flips = [np.diag(rng.choice([-1.0, 1.0], dimension)) for _ in range(2)]
    return [matrix.astype(np.float32) for matrix in (*drawn, *flips)]


def problem(rng, queries, count, dimension=6):
    q, x = unit(rng.normal(size=(queries, dimension))), unit(rng.normal(size=(count, dimension)))
    return q, x, np.argsort(-q @ x.T, axis=1, kind="stable").astype(np.int32)


@pytest.mark.real
def test_equals_the_public_code(shared):
    golden = np.load(shared / "goldens" / "superglobal_rerank.npz")
    m, k, beta = int(golden["M"]), int(golden["K"]), float(golden["beta"])
    database, ranks = golden["database"], golden["initial_ranks"].T
    for number, expected in enumerate(golden["refined"]):
        found = superglobal.refine(database[ranks[number, :m]], k, beta)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    found = superglobal.rerank(golden["queries"], database, ranks, m, k, beta, query_block=5)
    np.testing.assert_array_equal(found, golden["final_ranks"].T)
    assert (found != ranks).any()


def test_refine_by_hand():
    # The nearest other of the first is the second, at 0.8: (x1 + 0.4 x2) / 1.4
    x = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    found = superglobal.refine(x, 1, 0.5)
    np.testing.assert_allclose(found[0], [1.32 / 1.4, 0.24 / 1.4], atol=1e-6)
    np.testing.assert_allclose(found[2], [0.24 / 1.3, 1.18 / 1.3], atol=1e-6)


@pytest.mark.parametrize(
    ("queries", "count", "top_m", "k"), [(3, 20, 12, 4), (1, 9, 99, 2), (4, 7, 5, 50), (2, 6, 1, 3)]
)
def test_equals_the_reference(rng, queries, count, top_m, k):
    parts = problem(rng, queries, count)
    found = superglobal.rerank(*parts, top_m, k, 0.3)
    np.testing.assert_array_equal(found, reference(*parts, top_m, k, 0.3))


def test_any_chunk_gives_the_same(rng):
    parts = problem(rng, 7, 15)
    expected = superglobal.rerank(*parts, 10, 3, 0.2, query_block=1)
    for query_block in (2, 7, 100):
        found = superglobal.rerank(*parts, 10, 3, 0.2, query_block)
        np.testing.assert_array_equal(found, expected)


def test_renaming_images_renames_the_ranking(rng):
    q, x, ranks = problem(rng, 3, 14)
    names = rng.permutation(14)
    renamed = np.empty_like(x)
    renamed[names] = x
    found = superglobal.rerank(q, renamed, names[ranks], 9, 3, 0.2)
    np.testing.assert_array_equal(found, names[superglobal.rerank(q, x, ranks, 9, 3, 0.2)])


def test_masked_rows_are_unseen(rng):
    q, x, _ = problem(rng, 1, 10)
    padded = np.concatenate([x, np.full((3, 6), 5, np.float32)])
    found = superglobal.scores(q[0], padded, 4, 0.3, np.arange(13) < 10)
    np.testing.assert_allclose(found[:10], superglobal.scores(q[0], x, 4, 0.3), atol=1e-6)
    assert (found[10:] == -np.inf).all()


def test_duplicates_keep_their_order_and_nothing_stays_nothing(rng):
    q, x, _ = problem(rng, 2, 1)
    same = np.repeat(x, 5, axis=0)
    ranks = np.array([[3, 1, 4, 0, 2], [0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(superglobal.rerank(q, same, ranks, 5, 2, 0.3), ranks)
    assert superglobal.rerank(q[:0], same, ranks[:0]).shape == (0, 5)
    nothing = superglobal.scores(q[0], same, 2, 0.3, np.zeros(5, bool))
    assert (nothing == -np.inf).all()


def test_input_stays_as_it_is(rng):
    parts = problem(rng, 2, 8)
    before = parts[2].copy()
    superglobal.rerank(*parts, 5, 2, 0.9)
    np.testing.assert_array_equal(parts[2], before)


@pytest.mark.parametrize("pooling", superglobal.POOLINGS)
@pytest.mark.parametrize("k", [1, 4, 50])
def test_scores_equal_the_reference(rng, k, pooling):
    q, x, _ = problem(rng, 1, 12)
    found = superglobal.scores(q[0], x, k, 0.3, pooling=pooling)
    np.testing.assert_allclose(found, reference_scores(q[0], x, k, 0.3, pooling), atol=1e-5)


def test_the_mean_turns_with_the_vectors_and_the_maximum_does_not(rng):
    q, x, _ = problem(rng, 1, 40)
    for pooling in superglobal.POOLINGS:
        expected = np.asarray(superglobal.scores(q[0], x, 4, 0.3, pooling=pooling))
        for turn in rotations(rng, 6):
            found = np.asarray(superglobal.scores(q[0] @ turn, x @ turn, 4, 0.3, pooling=pooling))
            if pooling == "mean":
                np.testing.assert_allclose(found, expected, atol=1e-5)
                np.testing.assert_array_equal(np.argsort(-found), np.argsort(-expected))
            else:
                assert (np.argsort(-found) != np.argsort(-expected)).any()


def test_the_mean_is_over_the_images_that_are_there(rng):
    q, x, _ = problem(rng, 1, 10)
    padded = np.concatenate([x[:3], np.full((7, 6), 5, np.float32)])
    found = superglobal.scores(q[0], padded, 4, 0.3, np.arange(10) < 3, "mean")
    expected = superglobal.scores(q[0], x[:3], 4, 0.3, pooling="mean")
    np.testing.assert_allclose(found[:3], expected, atol=1e-6)
    nothing = superglobal.scores(q[0], 0 * x, 4, 0.3, pooling="mean")
    assert (np.asarray(nothing) == 0).all()


def test_an_unknown_pooling_is_named(rng):
    q, x, _ = problem(rng, 1, 4)
    with pytest.raises(ValueError, match="`pooling` .*'median'"):
        superglobal.scores(q[0], x, 2, 0.3, pooling="median")


@pytest.mark.parametrize("wrong", [{"top_m": 0}, {"k": 0}, {"query_block": 0}])
def test_wrong_numbers_are_named(rng, wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        superglobal.rerank(*problem(rng, 1, 4), **wrong)
