"""Times searches for pictures of many shapes, one after the other, as the search page does.

    python -m experiments.benchmarks.picture_shapes --index=runs/photos

A Searcher is opened and warmed up. Then a picture of 12 megapixels, pictures of random shapes, and
boxes of the large one are asked for, one at a time: first the search, whose response has the
results and the verdict on them, then the matches with a database image. Writes picture_shapes.json
and .md into --results: seconds of each request, the programs compiled after the warm-up, and the
memory.
"""

import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.compilation_cache import keep_on_disk
from delg_jax.evaluation.cost import resident_megabytes
from delg_jax.reports.tables import markdown
from delg_jax.retrieval.searcher import Searcher

_LARGE = 3000, 4000  # rows and columns of a photograph of 12 megapixels
_SIDES = 100, 3000  # of pictures of random shapes
_REQUESTS = "search", "matches"  # of the page, in their order


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "index", None, "Workdir to search.", required=True)
    flags.DEFINE_integer("pictures", 50, "Pictures of different shapes.", 1, flag_values=values)
    flags.DEFINE_integer("boxes", 20, "Boxes of a large picture.", 1, flag_values=values)
    text = "Method of the searches; by default the one that the page searches by."
    flags.DEFINE_string("method", None, text, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def asked(pictures: int, boxes: int) -> Iterator[tuple[str, np.ndarray, tuple | None]]:
    """Yields kind, picture and box of each query: a large picture, random shapes, boxes.

    Args:
      pictures: of random shapes.
      boxes: of the large picture.
    """
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (*_LARGE, 3), np.uint8)
    yield "12 megapixels", large, None
    for _ in range(pictures):
        shape = tuple(int(side) for side in rng.integers(*_SIDES, 2))
        yield "picture", rng.integers(0, 256, (*shape, 3), np.uint8), None
    for _ in range(boxes):
        top, left = (int(rng.integers(0, side * 3 // 4)) for side in _LARGE)
        bottom = int(rng.integers(top + 50, _LARGE[0]))
        right = int(rng.integers(left + 50, _LARGE[1]))
        yield "box", large, (left, top, right, bottom)


def measure(searcher: Searcher, method: str, pictures: int, boxes: int) -> dict[str, Any]:
    """Asks for pictures and boxes, one after the other.

    Args:
      searcher: opened, not warmed up.
      method: of the searches.
      pictures: of random shapes.
      boxes: of the large picture.

    Returns:
      `warm_up_seconds`, `seconds` by kind and request, `compiled` programs of the network by the
      warm-up and `compiled_later`, and `megabytes` of memory by moment.
    """
    megabytes = {"opened": resident_megabytes()}
    start = time.perf_counter()
    searcher.warm_up()
    warm_up_seconds = time.perf_counter() - start
    megabytes["warm"] = resident_megabytes()
    warm = set(searcher.compiled_shapes)
    seconds: dict[str, dict[str, list[float]]] = {}
    for kind, picture, box in asked(pictures, boxes):
        moments = [time.perf_counter()]
        query = searcher.query(picture, box)
        searcher.judge(query, searcher.search(query, method).hits)
        moments.append(time.perf_counter())
        searcher.matches(query, 0)
        moments.append(time.perf_counter())
        spent = seconds.setdefault(kind, {request: [] for request in _REQUESTS})
        for request, second in zip(_REQUESTS, np.diff(moments), strict=True):
            spent[request].append(float(second))
    megabytes["end"] = resident_megabytes()
    return {
        "warm_up_seconds": warm_up_seconds,
        "seconds": seconds,
        "compiled": len(warm),
        "compiled_later": len(set(searcher.compiled_shapes) - warm),
        "megabytes": megabytes,
    }


def table(content: Mapping[str, Any]) -> str:
    """Returns the result in Markdown."""
    columns = ["asked for", "times"]
    for request in _REQUESTS:
        columns += [f"{request}, median s", "largest s"]
    rows = []
    for kind, seconds in content["seconds"].items():
        row = [kind, str(len(seconds[_REQUESTS[0]]))]
        for request in _REQUESTS:
            row += [f"{np.median(seconds[request]):.1f}", f"{max(seconds[request]):.1f}"]
        rows.append(row)
    text = markdown(columns, rows)
    known = {moment: size for moment, size in content["megabytes"].items() if size is not None}
    memory = ", ".join(f"{moment} {size:.0f}" for moment, size in known.items()) or "not known"
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


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
