import numpy as np
import pytest

from delg_jax.search import kmeans


def clustered(rng, images=30, features=20, dim=16, clusters=25):
    """Unit vectors [N, K, D] around few directions, with the number of each one's."""
    directions = rng.normal(size=(clusters, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    owner = rng.integers(clusters, size=(images, features))
    vectors = directions[owner] + rng.normal(0, 0.1, (images, features, dim))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors.astype(np.float32), owner, directions


def reference(vectors, count, rounds, seed):
    """Lloyd's algorithm on the sphere, one loop over everything."""
    found = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))]
    for _ in range(rounds):
        own = np.argmax(vectors @ found.T, axis=1)
        sums = np.array([vectors[own == cell].sum(axis=0) for cell in range(count)])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        found = np.where(norms > 0, sums / np.maximum(norms, 1e-30), found)
    return found


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_equals_the_reference(rng, rounds):
    vectors, _, _ = clustered(rng)
    found = kmeans.centres(vectors, np.ones(vectors.shape[:2], bool), 12, rounds, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, reference(vectors.reshape(-1, 16), 12, rounds, 5), rtol=1e-5, atol=1e-6
    )


def test_rounds_bring_centres_nearer_to_the_features(rng):
    vectors, _, _ = clustered(rng)
    present = rng.random(vectors.shape[:2]) < 0.7
    near = []
    for rounds in range(4):
        points = kmeans.centres(vectors, present, 40, rounds, 0)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, rtol=1e-5)
        near.append((vectors[present] @ points.T).max(axis=1).mean())
    assert sorted(near) == near
    assert near[2] > near[0] + 0.02


def test_padding_draws_no_centre_and_moves_none(rng):
    vectors, _, _ = clustered(rng)
    present = np.zeros(vectors.shape[:2], bool)
    present[:, :5] = True
    found = kmeans.centres(vectors, present, 10, 2, 0)
    noisy = np.where(present[..., None], vectors, 7.0).astype(np.float32)
    np.testing.assert_array_equal(kmeans.centres(noisy, present, 10, 2, 0), found)


def test_of_a_large_database_a_part_is_looked_at(rng, monkeypatch):
    vectors, _, _ = clustered(rng)
    present = np.ones(vectors.shape[:2], bool)
    monkeypatch.setattr(kmeans, "_SAMPLED", 10)

    class Rows:
        shape, read = vectors.shape, set()

        def __getitem__(self, rows):
            if isinstance(rows, np.ndarray):
                self.read.update(rows.tolist())
            return vectors[rows]

    assert kmeans.centres(Rows(), present, 8, 2, 0).shape == (8, 16)
    assert 4 <= len(Rows.read) <= 5  # images of 20 features, 80 of which are enough


def test_more_centres_than_features_are_the_features(rng):
    vectors = clustered(rng, images=2, features=3)[0]
    found = kmeans.centres(vectors, np.ones((2, 3), bool), 99, 2, 0)
    np.testing.assert_allclose(found, vectors.reshape(-1, 16), atol=1e-6)


def test_no_features_have_no_centres(rng):
    vectors = clustered(rng, images=2, features=3)[0]
    assert kmeans.centres(vectors, np.zeros((2, 3), bool), 5, 2, 0).shape == (0, 16)
    assert kmeans.centres(vectors[:0], np.zeros((0, 3), bool), 5, 2, 0).shape == (0, 16)


def test_the_first_of_equally_near_centres_is_taken(rng, monkeypatch):
    monkeypatch.setattr(kmeans, "_FEATURES", 3)
    points = rng.normal(size=(4, 6)).astype(np.float32)
    points[2] = points[1]
    features = rng.normal(size=(10, 6)).astype(np.float32)
    expected = np.argmax(features @ points.T, axis=1)
    np.testing.assert_array_equal(kmeans.nearest(features, points), expected)
    assert 2 not in expected
