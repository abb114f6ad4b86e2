import pytest

from delg_jax.reports import benchmarks


def timed(name, median, spread=0.0, kind="ours"):
    return {
        "name": name,
        "kind": kind,
        "median": median,
        "spread": spread,
        "ratio": 2.0,
        "ratio_quartiles": [1.5, 2.5],
        "first_call_seconds": 1.0,
        "facts": {"overlap": 0.95},
    }


def result(*implementations):
    return {"name": "mds", "unit": "query", "implementations": implementations, "roofline": None}


def test_the_table_has_a_row_for_each_implementation():
    lines = benchmarks.benchmark_table(result(timed("a", 0.002), timed("b", 3.0))).splitlines()
    assert "ms/query" in lines[0]
    assert "2 " in lines[2]
    assert "3000" in lines[3]
    assert "2.00 [1.50, 2.50]" in lines[3]
    assert "overlap 0.95" in lines[3]


def test_the_roofline_is_reported_where_it_is_known():
    known = result(timed("a", 1.0))
    assert benchmarks.roofline_line(known) == ""
    known["roofline"] = {"seconds": 0.25, "share": 0.25, "bytes_per_second": 2e9}
    line = benchmarks.roofline_line(known)
    assert "250 ms/query" in line
    assert "2 GB/s" in line
    assert "25 %" in line
    assert "GFLOP" not in line


def test_a_change_within_both_spreads_is_not_reported():
    old, new = result(timed("a", 1.0, 0.1)), result(timed("a", 1.25, 0.1), timed("new", 1.0))
    (change,) = benchmarks.changes(old, new)
    assert (change["name"], change["factor"]) == ("a", 1.25)
    assert "1.25" in benchmarks.changes_table("query", [change])
    assert benchmarks.changes(old, result(timed("a", 1.19, 0.1))) == []


@pytest.mark.parametrize(
    ("ours", "peer", "expected"),
    [(2.0, 1.0, True), (1.0, 2.0, False), (0.5, 0.4, False), (2.0, 2.5, False), (2.0, 1.5, True)],
)
def test_ours_must_be_slower_than_a_loaded_machine_explains(ours, peer, expected):
    old = result(timed("a", 1.0), timed("b", 1.0, kind="peer"))
    new = result(timed("a", ours), timed("b", peer, kind="peer"))
    assert benchmarks.is_regression(benchmarks.changes(old, new)) is expected


def test_memory_by_stage():
    rows = [{"stage": "local", "bound": "x=4", "images": 1000, "megabytes": None}]
    line = benchmarks.memory_table({"rows": rows}).splitlines()[2]
    assert "1,000" in line
    assert line.endswith("- |")
