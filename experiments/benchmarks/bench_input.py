"""How many images a core reads for training, decoding and augmentation apart.

    python -m experiments.benchmarks.bench_input --images=DIR --size=321

DIR holds JPEG files, in folders or not. Every contender runs in one thread over the same files and
the same boxes, in turn, after a round that warms up. tf.data is measured where TensorFlow is
installed; it decodes only the box. Writes bench_input.json and bench_input.md into --results.
"""

import contextlib
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.benchmarks.case import Contender, Unavailable
from delg_jax.benchmarks.cases.input import compare_files
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data.images import EncodedImage
from delg_jax.errors import UserError


def contenders(files: Sequence[bytes], size: int) -> list[Contender]:
    """What is measured on the files, those of the peers that are installed."""
    comparison = compare_files(files, size)
    found = [*reversed(comparison.variants), comparison.ours]
    for peer in comparison.peers.values():
        with contextlib.suppress(Unavailable):
            found.append(peer())
    return found


def measure(files: Sequence[bytes], size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Times every contender.

    Args:
      files: encoded images.
      size: pixels, side of the crops.
      repeats: rounds over all contenders after the first, which does not count.

    Returns:
      By contender, median and range of images a second.
    """
    runs = contenders(files, size)
    rates: dict[str, list[float]] = {contender.name: [] for contender in runs}
    for _ in range(repeats + 1):
        for contender in runs:
            start = time.monotonic()
            contender.call()
            rates[contender.name].append(contender.units / (time.monotonic() - start))
    return {
        name: {"median": statistics.median(r[1:]), "low": min(r[1:]), "high": max(r[1:])}
        for name, r in rates.items()
    }


def table(rates: dict[str, dict[str, float]]) -> str:
    """A Markdown table."""
    lines = ["| one thread | images/s | range |", "| --- | ---: | ---: |"]
    for name, row in rates.items():
        lines.append(f"| {name} | {row['median']:.0f} | {row['low']:.0f} to {row['high']:.0f} |")
    return "\n".join(lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "images", "", "Folder of JPEG files.")
    flags.DEFINE_integer("size", 321, "Pixels, side of a crop.", 1, flag_values=values)
    flags.DEFINE_integer("count", 200, "Files that are read.", 1, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Rounds that count.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the table.")


def run(values: flags.FlagValues) -> None:
    """Measures and prints the table."""
    paths = sorted(pathlib.Path(values.images).rglob("*.jpg")) if values.images else []
    if not paths:
        raise UserError("--images", values.images, "must be a folder with .jpg files")
    files = [path.read_bytes() for path in paths[: values.count]]
    rates = measure(files, values.size, values.repeats)
    shapes = np.array([EncodedImage(data).shape for data in files])
    height, width = (int(side) for side in np.median(shapes, axis=0))
    content = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "size": values.size,
        "files": len(files),
        "median_shape": [height, width],
        "images_per_second": rates,
    }
    results = pathlib.Path(values.results)
    workdir.write_json(results / "bench_input.json", content)
    caption = f"{len(files)} JPEGs, median {height} x {width}, to {values.size} x {values.size}."
    text = f"{table(rates)}\n\n{caption}\n"
    workdir.write_text(results / "bench_input.md", text)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
