"""Another process that locks a folder, like a job that writes a store there."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Without our package, which takes seconds to import
_HOLDER = """
import fcntl, pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.parent.mkdir(parents=True, exist_ok=True)
with (folder.parent / f".{folder.name}.lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen]:
    """Yields the process; it releases the lock when its input is closed or the block ends."""
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "held\n"
        try:
            yield program
        finally:
            program.kill()
