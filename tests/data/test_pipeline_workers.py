import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.photographs import make_folder

PROGRAM = """
import glob, os, signal, time
from absl import flags
from configs import default
from delg_jax.data import folder, pipeline

def children():
    paths = glob.glob("/proc/self/task/*/children")
    return [int(child) for path in paths for child in open(path).read().split()]

if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    data = default.get_config().data
    data.root, data.image_size, data.workers = ROOT, 32, 1
    batches = pipeline.training_batches(folder.training(data).train, data, 4, seed=0)
"""


def run(tmp_path, then):
    """Output of a program that makes batches by a worker, and then something else."""
    make_folder(tmp_path)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("ROOT", repr(str(tmp_path))) + then)
    root = pathlib.Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    then = """
    next(batches)
    print(*children(), flush=True)
    os.kill(os.getpid(), 9)
"""
    stopped = run(tmp_path, then)
    children = [int(child) for child in stopped.stdout.split()]
    assert children
    deadline = time.monotonic() + 30
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline, f"{children} outlive their parent"
        time.sleep(0.5)


def is_running(process: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_signal_to_all_does_not_end_workers_that_are_starting(tmp_path):
    then = """
    first = None  # moment at which there was a worker beside multiprocessing's own process
    while first is None or time.monotonic() < first + 1:
        if first is None and len(children()) > 1:
            first = time.monotonic()
        for child in children():
            os.kill(child, signal.SIGTERM)
        time.sleep(0.01)
    print(next(batches)["label"].shape, next(batches)["label"].shape)
"""
    found = run(tmp_path, then)
    assert found.stdout == "(4,) (4,)\n", found.stderr
