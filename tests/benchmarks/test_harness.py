import numpy as np
import pytest

from delg_jax import json_files
from delg_jax.benchmarks import harness


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves forward."""
    now = [0.0]
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])
    return now


def test_calls_take_turns_and_the_first_round_is_not_counted(clock):
    called = []

    def call(name, seconds):
        called.append(name)
        clock[0] += seconds if called.count(name) > 1 else 10 * seconds

    first, second = harness.time_in_turn([lambda: call("a", 1.0), lambda: call("b", 2.0)], 3)
    assert called == ["a", "b"] * 4
    assert (first.first_call, first.seconds) == (10.0, (1.0, 1.0, 1.0))
    assert (second.first_call, second.median, second.fastest) == (20.0, 2.0, 2.0)


def test_rounds_stop_after_enough_seconds_and_a_warm_up_may_differ(clock):
    called = []

    def call():
        called.append("call")
        clock[0] += 1.5

    (timing,) = harness.time_in_turn([call], 5, [lambda: called.append("warm-up")], enough=2.0)
    assert called == ["warm-up", "call", "call"]
    assert timing.seconds == (1.5, 1.5)


def test_exponent_of_a_square_is_fitted_to_the_largest_sizes():
    points = [(1, 50.0), (10, 1.0), (20, 4.0), (40, 16.0)]
    assert harness.growth_exponent(points) == pytest.approx(2.0)


def test_a_result_says_where_it_was_measured(tmp_path):
    harness.write_result(tmp_path, "thing", {"seconds": 1.0}, "| table |\n", "<svg/>")
    content = json_files.read(
        tmp_path / "thing.json", "result", json_files.each(json_files.anything)
    )
    assert content["seconds"] == 1.0
    assert content["environment"]["versions"]["numpy"] == np.__version__
    assert {"commit", "date", "cpus"} <= set(content["environment"])
    assert (tmp_path / "thing.md").read_text() == "| table |\n"
    assert (tmp_path / "thing.svg").read_text() == "<svg/>"
