import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.photographs import make_folder


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    make_folder(tmp_path)
    program = f"""
from absl import flags
from configs import default
from delg_jax.data import folder, pipeline
if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    data = default.get_config().data
    data.root, data.image_size, data.workers = {str(tmp_path)!r}, 32, 1
    batches = pipeline.training_batches(folder.training(data).train, data, 4, seed=0)
    next(batches)
    import glob, os
    print(*(open(path).read() for path in glob.glob("/proc/self/task/*/children")), flush=True)
    os.kill(os.getpid(), 9)
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    root = pathlib.Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    children = [int(child) for child in run.stdout.split()]
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
