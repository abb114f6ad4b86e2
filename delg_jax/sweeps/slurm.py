"""The runs of a sweep as shell commands, and as a Slurm job array."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence

from delg_jax.sweeps.run_record import LOG

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=delg-sweep
#SBATCH --array={array}
# Submit with the resources of a run, for example: sbatch --gres=gpu:1 --time=8:00:00 SCRIPT
# For the table, also while runs are in progress:
#   cd {folder}
#   {gather}
set -eu
cd {folder}

# run FOLDER COMMAND...: its output goes to a file in the folder
run() {{
  mkdir -p "$1"
  exec "${{@:2}}" >>"$1/{log}" 2>&1
}}

case "${{SLURM_ARRAY_TASK_ID:?is set by sbatch}}" in
{cases}
esac
"""


def lines(commands: Mapping[str, Sequence[str]]) -> list[str]:
    """One shell line per command.

    Args:
      commands: command lines by the name of the run.
    """
    return [shlex.join(words) for words in commands.values()]


def slurm_script(
    commands: Mapping[str, Sequence[str]],
    gather: Sequence[str],
    workdir: str | pathlib.Path,
    folder: pathlib.Path,
    jobs: int = 0,
) -> str:
    """A script for sbatch, with one array element per command.

    Args:
      commands: command lines by the name of the run; at least one.
      gather: command line that makes the table.
      workdir: of the sweep, which gets the logs; relative to `folder` or absolute.
      folder: where the commands run.
      jobs: maximum number at a time; 0 leaves it to Slurm.

    Returns:
      The text of the script.
    """
    root = pathlib.Path(workdir)
    cases = [
        f"  {number}) run {shlex.join([str(root / name), *words])} ;;"
        for number, (name, words) in enumerate(commands.items())
    ]
    return _SCRIPT.format(
        array=f"0-{len(commands) - 1}" + (f"%{jobs}" if jobs else ""),
        folder=shlex.quote(str(folder)),
        gather=shlex.join(gather),
        log=LOG,
        cases="\n".join(cases),
    )
