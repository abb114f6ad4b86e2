"""hloc itself reads what is written for it; skipped where hloc is not installed."""

import numpy as np
import pytest

from delg_jax.features.formats import hloc
from delg_jax.search.global_search import search

pytestmark = pytest.mark.filterwarnings("default")  # of hloc and PyTorch

DATABASE = [f"database/street{number % 3}/{number}.jpg" for number in range(60)]
QUERIES = [f"queries/{number}.jpg" for number in range(10)]


def test_its_pairs_from_retrieval_ranks_as_we_do(rng, tmp_path):
    pytest.importorskip("h5py", reason="HDF5 files need h5py")
    reason = "hloc is not installed"
    retrieval = pytest.importorskip(
        "hloc.pairs_from_retrieval", reason=reason, exc_type=ImportError
    )
    vectors = rng.normal(size=(70, 32)).astype(np.float32)
    vectors += 2 * vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    with hloc.writing(tmp_path / "features.h5") as writer:
        for name, vector in zip([*DATABASE, *QUERIES], vectors, strict=True):
            writer.write_global(name, vector)
    output = tmp_path / "pairs.txt"
    retrieval.main(
        tmp_path / "features.h5", output, 20, query_prefix="queries/", db_prefix="database/"
    )
    pairs = [line.split() for line in output.read_text().splitlines()]
    similarities, images = search(vectors[60:], vectors[:60], 20)
    for row, query in enumerate(QUERIES):
        found = [DATABASE.index(image) for name, image in pairs if name == query]
        kept = similarities[row] >= 0  # hloc pairs no images of negative similarity
        theirs = vectors[found] @ vectors[60 + row]
        np.testing.assert_allclose(theirs, similarities[row][kept], atol=1e-6)
        clear = np.abs(np.diff(similarities[row], prepend=2, append=-2)) > 1e-6
        clear = (clear[:-1] & clear[1:])[kept]  # ranks that rounding does not decide
        np.testing.assert_array_equal(np.array(found)[clear], images[row][kept][clear])
