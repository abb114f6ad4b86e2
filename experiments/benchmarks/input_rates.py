"""How many images per second one core reads for training: decoded, and decoded and cropped.

    python -m experiments.benchmarks.input_rates --images=DIR --size=321

DIR holds JPEG files, at any depth. The implementations run in one thread on the same files and the
same boxes, in turn, after a warm-up. tf.data, which decodes only the box, is measured where
TensorFlow is installed. Writes input_rates.json and input_rates.md into --results.
"""

import contextlib
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.benchmarks.case import Implementation, Unavailable
from delg_jax.benchmarks.cases.input import compare_files
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data.images import EncodedImage
from delg_jax.errors import UserError


def implementations(files: Sequence[bytes], size: int) -> list[Implementation]:
    """Returns our implementations and those of the peers that are installed."""
    comparison = compare_files(files, size)
    found = [*reversed(comparison.variants), comparison.ours]
    for peer in comparison.peers.values():
        with contextlib.suppress(Unavailable):
            found.append(peer())
    return found


def measure(files: Sequence[bytes], size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Times every implementation.

    Args:
      files: encoded images.
      size: pixels, side of the crops.
      repeats: timed rounds.

    Returns:
      By implementation, the `median`, `low` and `high` of images per second.
    """
    timed = implementations(files, size)
    timings = harness.time_in_turn([one.call for one in timed], repeats)
    rates = {
        one.name: one.units / np.array(timing.seconds)
        for one, timing in zip(timed, timings, strict=True)
    }
    return {
        name: {"median": float(np.median(r)), "low": float(r.min()), "high": float(r.max())}
        for name, r in rates.items()
    }


def table(rates: dict[str, dict[str, float]]) -> str:
    """Returns a row for each implementation, in Markdown."""
    lines = ["| one thread | images/s | range |", "| --- | ---: | ---: |"]
    for name, row in rates.items():
        lines.append(f"| {name} | {row['median']:.0f} | {row['low']:.0f} to {row['high']:.0f} |")
    return "\n".join(lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "images", "", "Folder of JPEG files.")
    flags.DEFINE_integer("size", 321, "Side of a crop, pixels.", 1, flag_values=values)
    flags.DEFINE_integer("count", 200, "Files to read.", 1, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Timed rounds.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures the rates and prints the table."""
    paths = sorted(pathlib.Path(values.images).rglob("*.jpg")) if values.images else []
    if not paths:
        raise UserError("--images", values.images, "must be a folder with .jpg files")
    files = [path.read_bytes() for path in paths[: values.count]]
    rates = measure(files, values.size, values.repeats)
    shapes = np.array([EncodedImage(data).shape for data in files])
    height, width = (int(side) for side in np.median(shapes, axis=0))
    content = {
        "size": values.size,
        "files": len(files),
        "median_shape": [height, width],
        "images_per_second": rates,
    }
    caption = f"{len(files)} JPEGs, median {height} x {width}, to {values.size} x {values.size}."
    text = f"{table(rates)}\n\n{caption}\n"
    harness.write_result(values.results, "input_rates", content, text)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
