"""Rankings by embeddings do not depend on a basis that a library happens to choose."""

import numpy as np
import pytest

from delg_jax.rerank import mds
from delg_jax.rerank.mds import MdsSettings, embed, scores
from tests.rerank.test_mds import METHODS, unit
from tests.rerank.test_superglobal import rotations


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("neighbours", [0, 4])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_ranking_depends_on_the_basis_of_the_embedding(
    rng, monkeypatch, method, neighbours, beside
):
    settings = MdsSettings(dim=6, weight=0.7, neighbours=neighbours, **method)
    query, pairs = rng.random(20).astype(np.float32), rng.random((20, 20)).astype(np.float32)
    vectors = unit(rng.normal(size=(21, 5))) if beside else None
    given = query, pairs, np.ones(20, bool), settings, vectors
    expected = np.asarray(scores(*given))
    monkeypatch.setattr(mds, "embed", embed.__wrapped__)  # compiled ones would not see the turn
    for turn in rotations(rng, 6):
        with monkeypatch.context() as patch:
            for name in ("classical_mds", "landmark_mds"):
                made = getattr(mds, name)
                patch.setattr(mds, name, lambda *parts, made=made, turn=turn: made(*parts) @ turn)
            found = np.asarray(scores.__wrapped__(*given))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_array_equal(np.argsort(-found), np.argsort(-expected))


@pytest.mark.parametrize("method", METHODS[:2], ids=str)
@pytest.mark.parametrize("dim", [3, 5, 8])
def test_images_that_nothing_tells_apart_score_alike(rng, method, dim):
    # Eight images that resemble the query alone: seven equal eigenvalues, of which `dim` cuts some
    pairs = np.zeros((12, 12), np.float32)
    pairs[:4, :4] = 0.2 + 0.6 * rng.random((4, 4))
    query = np.where(np.arange(12) < 4, 0.5, 0.1).astype(np.float32)
    order = rng.permutation(12)
    settings = MdsSettings(dim=dim, weight=1.0, **method)
    found = np.asarray(scores(query[order], pairs[order][:, order], np.ones(12, bool), settings))
    found = found[np.argsort(order)]
    np.testing.assert_allclose(found[4:], found[4], atol=1e-3)
    expected = scores(query, pairs, np.ones(12, bool), settings)
    np.testing.assert_allclose(found, expected, atol=1e-3)
