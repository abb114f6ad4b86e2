"""Rankings of all methods are the same from run to run, on any devices, with any batches."""

import numpy as np
import pytest

from configs import quickstart
from delg_jax import configuration
from delg_jax.features.store import FeatureStore
from delg_jax.retrieval.methods import METHODS
from tests.folders import contents
from tests.training import programs

OVERRIDES = {
    "eval.methods": METHODS,
    "extract.max_features": 50,
    "search.graph_neighbours": 28,
    "rerank.sp.hypotheses": 50,
    "rerank.sp.short_list": 10,
    "rerank.sp.min_inliers": 4,
    "rerank.mds.short_list": 10,
    "rerank.mds.dim": 4,
    "rerank.qe.images": 3,
    "rerank.diffusion.neighbours": 5,
    "rerank.diffusion.spread": 0.5,
}
BLOCKS = {
    "search.local_block": 3,
    "search.query_block": 2,
    "search.global_block": 5,
    "search.graph_block": 5,
    "rerank.sp.pair_block": 3,
    "rerank.mds.query_block": 1,
}
CASES = {
    "again": ({}, 8),
    "one device": ({}, 1),
    "blocks": (BLOCKS, 8),
    "blocks on one device": (BLOCKS, 1),
    "single images": ({"extract.batch_pixels": 1, "extract.chunk_images": 5}, 8),
}


def evaluated(workdir, changes, devices):
    config = configuration.override(quickstart.get_config("smoke"), {**OVERRIDES, **changes})
    programs.finish(programs.start(config, workdir, devices, (), "evaluate"))
    return workdir


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("determinism") / "first", {}, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_rankings_do_not_depend_on(name, first):
    changes, devices = CASES[name]
    workdir = evaluated(first.parent / name, changes, devices)
    with np.load(first / "rankings.npz") as expected, np.load(workdir / "rankings.npz") as found:
        assert set(found.files) == set(expected.files) >= {"global", "local+mds"}
        for method in expected.files:
            np.testing.assert_array_equal(found[method], expected[method], err_msg=method)
    database = "features/database"
    if not any(field.startswith("extract.") for field in changes):
        arrays = (contents(folder / database) for folder in (first, workdir))
        one, other = ({n: v for n, v in a.items() if n != "config.json"} for a in arrays)
        assert one == other
        return
    # XLA sums a convolution in another order for another number of images in a batch
    one, other = (FeatureStore(folder / database) for folder in (first, workdir))
    assert_close(one.global_descriptors(), other.global_descriptors(), 1e-6)
    for values, others in zip(one.local_features(0), other.local_features(0), strict=True):
        assert_close(values, others, 1e-3)


def assert_close(values, others, tolerance):
    values, others = (np.asarray(array, np.float32) for array in (values, others))
    np.testing.assert_allclose(values, others, rtol=tolerance, atol=tolerance)
