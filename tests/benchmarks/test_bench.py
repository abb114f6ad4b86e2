import json

import numpy as np
import pytest

from delg_jax.benchmarks import bench, case, harness
from delg_jax.benchmarks.case import Case, Comparison, Implementation, Unavailable, Work
from delg_jax.benchmarks.peers import libraries
from delg_jax.errors import UserError
from delg_jax.rerank import mds
from delg_jax.search import global_search

# The slower cases have their own tests
QUICK = ("global", "global_one", "local", "binary", "mds", "verify", "input")


def put(monkeypatch, *implementations, peers=None, work=None):
    """Replaces the case mds by given implementations; the clock advances 1 s at each reading."""
    ours, *variants = implementations
    comparison = Comparison("thing", ours, peers or {}, tuple(variants), work)
    known = Case(lambda rng, **_: comparison, {"standard": {"n": 1}})
    monkeypatch.setattr(bench, "load", lambda name: known)
    clock = iter(np.arange(1000.0))
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))


@pytest.mark.parametrize("name", QUICK)
def test_the_result_describes_what_was_timed(name):
    result = bench.bench(name, repeats=3, size="tiny", peers="none")
    assert json.loads(json.dumps(result)) == result
    parts = {
        "name",
        "size",
        "unit",
        "repeats",
        "implementations",
        "left_out",
        "roofline",
        "environment",
    }
    assert set(result) == parts
    assert result["size"] == bench.load(name).sizes["tiny"]
    assert result["implementations"][0]["kind"] == "ours"
    for timed in result["implementations"]:
        assert len(timed["seconds"]) == 3
        assert min(timed["seconds"]) <= timed["median"] <= max(timed["seconds"])
        assert timed["first_call_seconds"] > 0
        assert timed["units_per_second"] == 1 / timed["median"]
    assert result["implementations"][0]["ratio"] == 1


@pytest.mark.parametrize("name", QUICK)
def test_peers_run_where_they_are_installed(name):
    pytest.importorskip("faiss", reason="the extra bench")
    result = bench.bench(name, repeats=1, size="tiny")
    theirs = [timed for timed in result["implementations"] if timed["kind"] == "peer"]
    assert len(theirs) + len(result["left_out"]) == len(
        bench.load(name).compare(np.random.default_rng(0), **result["size"]).peers
    )


def test_every_case_has_the_sizes_standard_and_tiny():
    for name in bench.CASE_MODULES:
        if bench.CASE_MODULES[name] not in ("extract", "train"):
            assert {"standard", "tiny"} <= set(bench.load(name).sizes)


def test_implementations_take_turns_and_times_are_per_unit(monkeypatch):
    calls = []
    ours = Implementation("ours", lambda: calls.append("ours"), 1)
    peer = Implementation("peer", lambda: calls.append("peer"), 4)
    put(monkeypatch, ours, peers={"peer": lambda: peer})
    result = bench.bench("mds", repeats=2)
    assert calls == ["ours", "peer"] * 3
    first, second = result["implementations"]
    assert (first["median"], second["median"]) == (1.0, 0.25)
    assert second["ratio"] == 0.25
    assert result["roofline"] is None


def test_the_ratio_is_the_median_over_rounds(monkeypatch):
    implementation = Implementation("both", lambda: None, 1)
    timing = harness.Timing(1.0, (2.0, 20.0, 3.0))
    found = bench._summary("peer", implementation, timing, np.array([1.0, 10.0, 3.0]))
    assert found["ratio"] == 2.0
    assert found["median"] == 3.0


def test_only_requested_peers_are_made_and_missing_ones_left_out(monkeypatch):
    def missing():
        raise Unavailable("package", "faiss-cpu", "is not installed")

    implementation = Implementation("a", lambda: None, 1)
    given = {"a": lambda: implementation, "b": missing}
    put(monkeypatch, implementation, peers=given)
    result = bench.bench("mds", repeats=1)
    assert [timed["kind"] for timed in result["implementations"]] == ["ours", "peer"]
    assert "faiss-cpu" in result["left_out"]["b"]
    for wanted, count in (("none", 1), ("a", 2), (["a", "a"], 3)):
        found = bench.bench("mds", repeats=1, peers=wanted)
        assert len(found["implementations"]) == count
        assert found["left_out"] == {}
    with pytest.raises(UserError, match="--peers"):
        bench.bench("mds", peers="c")


def test_our_time_is_compared_with_the_roofline(monkeypatch):
    put(monkeypatch, Implementation("ours", lambda: None, 2), work=Work(operations=100.0))
    monkeypatch.setattr(case, "product_rate", lambda dtype: 400.0)
    # A unit takes 0.5 s; at the measured rate it would take 0.25 s
    assert bench.bench("mds", repeats=1)["roofline"]["share"] == 0.5


@pytest.mark.parametrize(
    "arguments", [{"name": "x"}, {"name": "mds", "size": "x"}, {"name": "mds", "repeats": 0}]
)
def test_invalid_arguments_are_errors(arguments):
    with pytest.raises(UserError):
        bench.bench(**arguments)


def test_peers_of_search_and_embedding_agree_with_ours(rng):
    queries, database = rng.normal(size=(3, 8)), rng.normal(size=(40, 8))
    queries, database = queries.astype(np.float32), database.astype(np.float32)
    _, indices = global_search.search(queries, database, 5)
    np.testing.assert_array_equal(libraries.top_k(queries, database, 5), indices)
    distances = np.linalg.norm(database[:, None] - database[None], axis=2).astype(np.float32)
    theirs, points = libraries.classical_mds(distances, 8), mds.classical_mds(distances, 8)
    np.testing.assert_allclose(theirs @ theirs.T, points @ points.T, atol=1e-3)


def test_the_peer_of_verification_finds_the_transformation(rng):
    vectors = np.eye(8, dtype=np.float32)
    index, near = libraries.match(vectors, vectors[[3, 1, 0, 2]], max_distance=1.0)
    assert index[:4].tolist() == [2, 1, 3, 0]
    assert near.tolist() == [True] * 4 + [False] * 4
    source = rng.uniform(0, 100, (20, 2))
    target = source @ np.array([[0.9, 0.1], [-0.2, 1.1]]) + 5
    target[:5] += 300 * rng.uniform(1, 2, (5, 2))
    assert libraries.ransac(source, target, 200, 1.0, rng) == 15
    assert libraries.ransac(source[:3], target[:3], 200, 1.0, rng) == 0
    line = np.stack([np.arange(6.0), np.arange(6.0)], axis=1)
    assert libraries.ransac(line, line, 5, 1.0, rng) in (0, 6)
