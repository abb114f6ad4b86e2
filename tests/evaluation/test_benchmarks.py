import json

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.evaluation import benchmarks, extraction_bench, peers
from delg_jax.rerank import mds
from delg_jax.search import global_search

NEEDED = {"verify_opencv": "cv2", "verify_official": "skimage"}
# With PyTorch, and a test of their own
EXTRACTION = set(extraction_bench.VARIANTS)


@pytest.mark.parametrize("name", sorted(set(benchmarks.SIZES) - EXTRACTION))
def test_a_benchmark_says_what_was_timed(name):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason=f"the peer of {name}")
    result = benchmarks.bench(name, repeats=3, size="tiny")
    assert json.loads(json.dumps(result)) == result
    parts = {"name", "size", "unit", "repeats", "ours", "peer", "ratio", "machine"}
    assert set(result) == parts
    assert result["size"] == benchmarks.SIZES[name]["tiny"]
    assert {"device", "cpus", "python", "jax", "numpy"} <= set(result["machine"])
    for timed in (result["ours"], result["peer"]):
        assert len(timed["seconds"]) == 3
        assert min(timed["seconds"]) <= timed["median"] <= max(timed["seconds"])
        assert timed["first_call_seconds"] > 0
        assert timed["units_per_second"] == 1 / timed["median"]
    assert result["ratio"] == result["peer"]["median"] / result["ours"]["median"]


def test_counted_operations_are_compared_with_those_of_a_matrix_product(monkeypatch):
    ours = benchmarks.Contender("ours", lambda: None, 2)
    peer = benchmarks.Contender("peer", lambda: None, 1)
    pair = benchmarks.Pair("thing", ours, peer, operations=600.0, dtype="bfloat16")
    monkeypatch.setitem(benchmarks._PAIRS, "mds", lambda rng, **_: pair)
    monkeypatch.setitem(benchmarks._PEAK_SIDES, "cpu", 10)
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: next(clock))
    counted = benchmarks.bench("mds", repeats=1)["operations"]
    # Half a second a thing; a product of 2,000 operations takes a second
    assert counted == {"per_unit": 600, "per_second": 1200, "peak": 2000, "share": 0.6}


def test_the_two_take_turns_and_count_per_unit(monkeypatch):
    calls = []
    ours = benchmarks.Contender("ours", lambda: calls.append("ours"), 1)
    peer = benchmarks.Contender("peer", lambda: calls.append("peer"), 4)
    pair = benchmarks.Pair("thing", ours, peer)
    monkeypatch.setitem(benchmarks._PAIRS, "mds", lambda rng, **_: pair)
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: next(clock))
    result = benchmarks.bench("mds", repeats=2)
    assert calls == ["ours", "peer"] * 3
    assert (result["ours"]["median"], result["peer"]["median"]) == (1.0, 0.25)
    assert result["ratio"] == 0.25


@pytest.mark.parametrize(
    "arguments", [{"name": "x"}, {"name": "mds", "size": "x"}, {"name": "mds", "repeats": 0}]
)
def test_mistakes_are_refused(arguments):
    with pytest.raises(UserError):
        benchmarks.bench(**arguments)


def test_peers_of_search_and_embedding_agree_with_ours(rng):
    queries, database = rng.normal(size=(3, 8)), rng.normal(size=(40, 8))
    queries, database = queries.astype(np.float32), database.astype(np.float32)
    _, indices = global_search.search(queries, database, 5)
    np.testing.assert_array_equal(peers.top_k(queries, database, 5), indices)
    distances = np.linalg.norm(database[:, None] - database[None], axis=2).astype(np.float32)
    theirs, points = peers.classical_mds(distances, 8), mds.classical_mds(distances, 8)
    np.testing.assert_allclose(theirs @ theirs.T, points @ points.T, atol=1e-3)


def test_the_peer_of_verification_finds_the_transformation(rng):
    vectors = np.eye(8, dtype=np.float32)
    index, near = peers.match(vectors, vectors[[3, 1, 0, 2]], max_distance=1.0)
    assert index[:4].tolist() == [2, 1, 3, 0]
    assert near.tolist() == [True] * 4 + [False] * 4
    source = rng.uniform(0, 100, (20, 2))
    target = source @ np.array([[0.9, 0.1], [-0.2, 1.1]]) + 5
    target[:5] += 300 * rng.uniform(1, 2, (5, 2))
    assert peers.ransac(source, target, 200, 1.0, rng) == 15
    assert peers.ransac(source[:3], target[:3], 200, 1.0, rng) == 0
    line = np.stack([np.arange(6.0), np.arange(6.0)], axis=1)
    assert peers.ransac(line, line, 5, 1.0, rng) in (0, 6)
