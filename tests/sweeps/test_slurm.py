import shlex
import subprocess
from pathlib import Path

import pytest

from delg_jax.sweeps import slurm

ODD = 'it\'s; $(rm -rf) "x" *'


def test_a_line_is_read_back_as_the_words():
    words = ["delg", "sweep", "--config.extract.local_scales=(0.5, 1.0)", f"--config.x={ODD}"]
    (line, _) = slurm.lines({"a": words, "b": ["delg"]})
    assert shlex.split(line) == words


@pytest.mark.parametrize("odd", ["plain", ODD])
def test_each_element_of_the_array_does_its_run(tmp_path, odd):
    folder = tmp_path / odd
    folder.mkdir()
    commands = {
        "first": ["sh", "-c", 'echo "$0" here; pwd; echo wrong >&2', odd],
        "second": ["sh", "-c", "exit 7"],
    }
    text = slurm.slurm_script(commands, ["delg", "--gather"], f"w/{odd}", folder)
    script = tmp_path / "script"
    script.write_text(text)
    subprocess.run(["bash", "-n", str(script)], check=True)
    statuses = [
        subprocess.run(
            ["bash", str(script)], cwd="/", env={"PATH": "/usr/bin:/bin", **environment}
        ).returncode
        for environment in ({"SLURM_ARRAY_TASK_ID": str(n)} for n in (0, 1))
    ]
    assert statuses == [0, 7]
    log = (folder / "w" / odd / "first" / "run.log").read_text()
    assert log.splitlines() == [f"{odd} here", str(folder), "wrong"]


def test_the_script_tells_slurm_what_it_is():
    commands = {name: ["delg", f"--only={name}"] for name in "abc"}
    text = slurm.slurm_script(commands, ["delg", "--gather"], "w", Path("/x"), jobs=2)
    assert text.startswith("#!/bin/bash\n#SBATCH ")
    assert "#SBATCH --array=0-2%2\n" in text
    assert "#   delg --gather\n" in text
    assert "--array=0-2\n" in slurm.slurm_script(commands, [], "w", Path("/x"))


def test_without_slurm_the_script_ends_in_an_error(tmp_path):
    script = tmp_path / "script"
    script.write_text(slurm.slurm_script({"a": ["true"]}, [], "w", tmp_path))
    ended = subprocess.run(["bash", str(script)], capture_output=True, text=True, env={})
    assert ended.returncode != 0
    assert "is set by sbatch" in ended.stderr
