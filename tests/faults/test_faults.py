import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from delg_jax import workdir as outputs
from tests import stores
from tests.faults import moments, pairs, results
from tests.faults.moments import Moment, Outcome
from tests.faults.programs import Ended

ROOT = Path(__file__).resolve().parents[2]
EVERY = ("train", "extract", "index", "evaluate", "sweep")


def faults(*flags):
    """The program's exit status and what it printed."""
    words = [sys.executable, "-m", "tests.faults", *flags]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def workdir(tmp_path, rng):
    """Some of what verbs leave."""
    rows = [stores.features(rng, 2) for _ in range(4)]
    stores.fill(tmp_path / "features" / "database", rows)
    outputs.write_json(tmp_path / "metrics.json", {"map": 1.0, "seconds": {"global": 0.1}})
    outputs.write_arrays(tmp_path / "rankings.npz", {"global": np.arange(3)})
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.jsonl").write_text('{"step": 1, "step_seconds": 2}\n{"step": 2')
    return tmp_path


def test_moments_are_drawn_and_take_all_in_turn():
    plan = moments.plan(44, 0, EVERY, moments.FAULTS)
    assert plan == moments.plan(44, 0, EVERY, moments.FAULTS)
    assert len({(moment.verb, moment.fault) for moment in plan[:22]}) == 22
    assert len({moment.share for moment in plan}) == 44
    assert {m.verb for m in plan if m.fault == "worker killed"} == {"train", "sweep"}


def test_times_and_half_a_line_do_not_count(workdir):
    before = results.fingerprint(workdir, ("*",))
    assert {"metrics.json", "rankings.npz", "logs/metrics.jsonl"} < set(before)
    outputs.write_json(workdir / "metrics.json", {"map": 1.0, "seconds": {"global": 9.0}})
    (workdir / "logs" / "metrics.jsonl").write_text('{"step": 1, "step_seconds": 3}\n')
    (workdir / ".metrics.json.x1").write_text("{")
    assert results.fingerprint(workdir, ("*",)) == before
    outputs.write_json(workdir / "metrics.json", {"map": 2.0, "seconds": {"global": 9.0}})
    changed = results.fingerprint(workdir, ("*",))
    assert [name for name in before if changed[name] != before[name]] == ["metrics.json"]


@pytest.mark.parametrize("name", ["metrics.json", "rankings.npz", "features/database/counts/c.1"])
def test_half_a_file_under_its_final_name_is_found(workdir, name):
    assert results.not_whole(workdir) == []
    path = workdir / name
    path.write_bytes(path.read_bytes()[:-3])
    (found,) = results.not_whole(workdir)
    assert found.startswith(name.rpartition("/c.1")[0] or name)


@pytest.mark.parametrize(
    ("fault", "status", "output", "right"),
    [
        ("killed", -9, "", True),
        ("terminated", 130, "delg: interrupted", True),
        ("full disk", 2, "12:00:00 step 3\ndelg: disk = '/w': No space left on device", True),
        ("full disk", 2, "12:00:00 step 3", False),
        ("full disk", -9, "", False),
        ("full disk", 1, "delg: disk = '/w'", False),
        ("read-only", 2, "Traceback (most recent call last):\ndelg: disk = '/w'", False),
        ("worker killed", -1000, "", False),
    ],
)
def test_a_verb_may_end_by_a_line_or_by_the_signal(fault, status, output, right):
    moment = Moment("extract", fault, 0.5)
    assert (moments.wrong_end(moment, Ended(status, output)) == []) is right


def test_a_killed_extraction_resumes_to_the_same_bytes():
    status, said = faults("--moments=1", "--verbs=extract", "--faults=killed", "--seed=3")
    assert status == 0, said
    assert said.endswith("| extract | killed | 1 | 1 | 1 |\n")


@pytest.mark.slow
def test_a_hundred_moments_leave_what_undisturbed_runs_leave():
    status, said = faults("--moments=100")
    assert status == 0, said


@pytest.mark.slow
def test_verbs_at_once_work_wait_or_say_one_line():
    status, said = faults(f"--pairs={','.join(pairs.VERBS)}")
    assert status == 0, said


def test_a_difference_shows_in_the_table_and_in_the_status():
    from tests.faults.__main__ import table

    outcomes = [
        Outcome(Moment("train", "killed", 0.1), True, []),
        Outcome(Moment("train", "killed", 0.2), False, ["differs: metrics.json"]),
    ]
    assert table(outcomes).endswith("| train | killed | 2 | 1 | 1 |")
