"""Times searches for pictures of many shapes, one after the other, as the search page does.

    python -m experiments.benchmarks.picture_shapes --index=runs/photos

A Searcher is opened and warmed up. Then a picture of 12 megapixels, pictures of random shapes, and
boxes of the large one are asked for, one at a time; each is searched for, judged and matched with a
database image. Writes picture_shapes.json and .md into --results: seconds of each, the programs
compiled after the warm-up, and the memory.
"""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.compilation_cache import keep_on_disk
from delg_jax.reports.tables import markdown
from delg_jax.retrieval.searcher import Searcher

_LARGE = 3000, 4000  # rows and columns of a photograph of 12 megapixels
_SIDES = 100, 3000  # of pictures of random shapes


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "index", None, "Workdir to search.", required=True)
    flags.DEFINE_integer("pictures", 50, "Pictures of different shapes.", 1, flag_values=values)
    flags.DEFINE_integer("boxes", 20, "Boxes of a large picture.", 1, flag_values=values)
    text = "Method of the searches; by default the one that the page searches by."
    flags.DEFINE_string("method", None, text, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def measure(searcher: Searcher, method: str, pictures: int, boxes: int) -> dict[str, Any]:
    """Asks for pictures and boxes, one after the other.

    Args:
      searcher: opened, not warmed up.
      method: of the searches.
      pictures: of random shapes.
      boxes: of the large picture.

    Returns:
      `warm_up_seconds`, `seconds` by kind, `compiled` programs of the network by the warm-up and
      `compiled_later`, and `megabytes` of memory by moment.
    """
    megabytes = {"opened": _resident()}
    start = time.perf_counter()
    searcher.warm_up()
    warm_up_seconds = time.perf_counter() - start
    megabytes["warm"] = _resident()
    warm = set(searcher.compiled_shapes)
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (*_LARGE, 3), np.uint8)
    seconds: dict[str, list[float]] = {}
    for number in range(-1, pictures + boxes):
        picture, box, kind = large, None, "12 megapixels"
        if 0 <= number < pictures:
            shape = tuple(int(side) for side in rng.integers(*_SIDES, 2))
            picture, kind = rng.integers(0, 256, (*shape, 3), np.uint8), "picture"
        elif number >= pictures:
            y, x = (int(rng.integers(0, side * 3 // 4)) for side in _LARGE)
            bottom, right = (
                int(rng.integers(first + 50, side))
                for first, side in zip((y, x), _LARGE, strict=True)
            )
            box, kind = (x, y, right, bottom), "box"
        start = time.perf_counter()
        query = searcher.query(picture, box)
        searcher.judge(query, searcher.search(query, method).hits)
        searcher.matches(query, 0)
        seconds.setdefault(kind, []).append(time.perf_counter() - start)
    megabytes["end"] = _resident()
    return {
        "warm_up_seconds": warm_up_seconds,
        "seconds": seconds,
        "compiled": len(warm),
        "compiled_later": len(set(searcher.compiled_shapes) - warm),
        "megabytes": megabytes,
    }


def table(content: Mapping[str, Any]) -> str:
    """Returns the result in Markdown."""
    rows = [
        [kind, str(len(spent)), f"{np.median(spent):.1f}", f"{max(spent):.1f}"]
        for kind, spent in content["seconds"].items()
    ]
    text = markdown(["asked for", "times", "median s", "largest s"], rows)
    memory = ", ".join(f"{moment} {size:.0f}" for moment, size in content["megabytes"].items())
    return (
        f"{text}\n\nMethod {content['method']} among {content['images']} images; warm-up "
        f"{content['warm_up_seconds']:.0f} s, {content['compiled']} programs of the network, "
        f"{content['compiled_later']} compiled later; memory in MB: {memory}.\n"
    )


def run(values: flags.FlagValues) -> None:
    """Measures and prints the table."""
    keep_on_disk()
    root = pathlib.Path(values.index)
    config = stored_config.read(root)
    searcher = Searcher(config, root)
    method = values.method or searcher.best_method
    content = {
        "images": len(searcher.source),
        "method": method,
        **measure(searcher, method, values.pictures, values.boxes),
    }
    text = table(content)
    harness.write_result(values.results, "picture_shapes", content, text, config=config)
    print(text, end="")


def _resident() -> float:
    """Megabytes of memory of this process."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
