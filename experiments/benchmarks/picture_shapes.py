"""Times searches for pictures of many shapes, one after the other, as the search page does.

    python -m experiments.benchmarks.picture_shapes --index=runs/photos --output=picture_shapes.json

A Searcher is opened and warmed up. Then pictures of random shapes, boxes of a large picture, and
matches with a database image are asked for, one at a time. Reports seconds of a clock and of the
processor for each, the number of programs compiled after the warm-up, and the memory at the end.
"""

import pathlib
import sys
import time

import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.compilation_cache import keep_on_disk
from delg_jax.retrieval.searcher import Searcher

_LARGE = 3000, 4000  # rows and columns of a photograph of 12 megapixels


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "index", None, "Workdir to search.", required=True)
    arguments.define_path(values, "output", None, "JSON file for the result.")
    flags.DEFINE_integer("pictures", 50, "Pictures of different shapes.", flag_values=values)
    flags.DEFINE_integer("boxes", 20, "Boxes of a large picture.", flag_values=values)
    flags.DEFINE_string("method", "local+sp", "Method of the searches.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Measures, prints a summary, and writes the result."""
    keep_on_disk()
    root = pathlib.Path(values.index)
    searcher = Searcher(stored_config.read(root), root)
    opened = _resident()
    start = time.perf_counter(), time.process_time()
    searcher.warm_up()
    warm_up = time.perf_counter() - start[0], time.process_time() - start[1]
    before = set(searcher.compiled_shapes)
    rng = np.random.default_rng(0)
    rows = []
    large = rng.integers(0, 256, (*_LARGE, 3), np.uint8)
    for number in range(values.pictures + values.boxes):
        box = None
        if number < values.pictures:
            shape = tuple(int(side) for side in rng.integers(100, 3000, 2))
            picture = rng.integers(0, 256, (*shape, 3), np.uint8)
        else:
            y, x = (int(rng.integers(0, side - 200)) for side in _LARGE)
            box = x, y, int(rng.integers(x + 100, _LARGE[1])), int(rng.integers(y + 100, _LARGE[0]))
            picture = large
        start = time.perf_counter(), time.process_time()
        query = searcher.query(picture, box)
        searcher.search(query, values.method)
        searcher.matches(query, 0)
        spent = time.perf_counter() - start[0], time.process_time() - start[1]
        rows.append({"shape": picture.shape[:2], "box": box, "wall": spent[0], "cpu": spent[1]})
    result = {
        "images": len(searcher.source),
        "method": values.method,
        "warm_up": {"wall": warm_up[0], "cpu": warm_up[1], "programs": len(before)},
        "compiled_later": len(set(searcher.compiled_shapes) - before),
        "megabytes": {"opened": opened, "end": _resident()},
        "searches": rows,
    }
    for name in ("wall", "cpu"):
        spent = [row[name] for row in rows]
        print(f"{name} seconds: median {np.median(spent):.2f}, largest {max(spent):.2f}")
    print({name: value for name, value in result.items() if name != "searches"})
    if values.output:
        workdir.write_json(pathlib.Path(values.output), result)


def _resident() -> float:
    """Megabytes of memory of this process."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
