import numpy as np
import pytest

from delg_jax.benchmarks.cases import local, vectors
from delg_jax.benchmarks.peers import libraries


def test_overlap_counts_the_images_that_both_put_first():
    exact = np.array([[4, 3, 2, 1], [1, 2, 3, 4.0]])
    found = np.array([[4, 1, 3, 2], [4, 3, 2, 1.0]])
    assert local.overlap(exact, exact, 2) == 1
    assert local.overlap(found, exact, 2) == 0.25


def test_all_neighbours_give_the_exact_similarity():
    pytest.importorskip("faiss", reason="the peer")
    numbers = {**local.CASES["local"].sizes["tiny"], "peer_queries": 2}
    numbers["nearest"] = numbers["images"] * numbers["features"]
    comparison = local.compare(np.random.default_rng(0), **numbers)
    found = np.stack(comparison.peers["faiss"]().call())
    np.testing.assert_allclose(found, comparison.ours.call(), atol=1e-5)


def test_a_vote_is_that_of_the_best_feature_of_an_image():
    class Index:
        """Of two images with two features; neighbours come best first."""

        def search(self, query, nearest):
            rows = np.array([[1, 0, 3], [2, 3, 0]])
            return np.array([[0.9, 0.8, 0.5], [0.7, 0.6, 0.2]]), rows[:, :nearest]

    query = np.zeros((2, 4), np.float32)
    found = libraries.voted(Index(), query, 2, 2, 3, lambda cosines: cosines)
    np.testing.assert_allclose(found, [(0.9 + 0.2) / 2, (0.5 + 0.7) / 2])


def test_images_of_a_place_share_features_with_its_query(rng):
    asked, database = vectors.places(rng, 1, 8, 40, 64, views=4)
    best = np.einsum("kd,nfd->nkf", asked[0], database).max(axis=(1, 2))
    assert (best[::2] > best[1::2].max()).all()  # images of the first of two places
    np.testing.assert_allclose(np.linalg.norm(database, axis=2), 1, atol=1e-5)
