import numpy as np
import pytest

from delg_jax.rerank.query_expansion import expand


def unit(array):
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def reference(queries, database, ranks, images, alpha):
    result = []
    for row, query in enumerate(queries.astype(float)):
        total = query.copy()
        for image in ranks[row, :images]:
            cosine = max(query @ database[image], 0)
            total += (cosine**alpha if alpha else 1) * database[image]
        result.append(total / np.linalg.norm(total))
    return np.array(result)


def problem(rng, queries=3, count=9):
    q, x = unit(rng.normal(size=(queries, 5))), unit(rng.normal(size=(count, 5)))
    return q, x, np.argsort(-q @ x.T, axis=1, kind="stable")


def test_by_hand():
    # q + 0.6^2 x, of which x is the best image and the other is left out
    q, x = np.array([[1, 0]], np.float32), np.array([[0, 1], [0.6, 0.8]], np.float32)
    found = expand(q, x, np.array([[1, 0]]), 1, 2.0)
    np.testing.assert_allclose(found, unit(np.array([[1 + 0.36 * 0.6, 0.36 * 0.8]])), atol=1e-6)
    found = expand(q, x, np.array([[1, 0]]), 2)
    np.testing.assert_allclose(found, unit(np.array([[1.6, 1.8]])), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("images", [1, 4, 99])
def test_equals_the_reference(rng, images, alpha):
    parts = problem(rng)
    expected = reference(*parts, images, alpha)
    np.testing.assert_allclose(expand(*parts, images, alpha), expected, atol=1e-5)


def test_no_images_and_duplicates_change_nothing(rng):
    q, x, ranks = problem(rng)
    np.testing.assert_allclose(expand(q, x, ranks, 0), q, atol=1e-6)
    same = np.repeat(q[:1], 5, axis=0)
    np.testing.assert_allclose(expand(q[:1], same, np.arange(5)[None], 5, 3.0), q[:1], atol=1e-6)
    assert expand(q[:0], x, ranks[:0], 3).shape == (0, 5)


def test_opposite_vectors_stay_finite():
    q = np.array([[1, 0]], np.float32)
    assert (expand(q, -q, np.array([[0]]), 1) == 0).all()


def test_wrong_numbers_are_named(rng):
    with pytest.raises(ValueError, match="`images`"):
        expand(*problem(rng), -1)
    with pytest.raises(ValueError, match="`alpha`"):
        expand(*problem(rng), 3, -0.5)
