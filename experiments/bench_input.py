"""How many images a core reads for training, decoding and augmentation apart.

    python -m experiments.bench_input --images=DIR --size=321

DIR holds JPEG files, in folders or not. Every contender runs in one thread over the same files and
the same boxes, in turn, after a round that warms up. tf.data is measured where TensorFlow is
installed; it decodes only the box. Writes bench_input.json and bench_input.md into --results.
"""

import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.cli.main import run_experiment
from delg_jax.data.augmentation import CropSettings, random_crop
from delg_jax.data.images import EncodedImage
from delg_jax.errors import UserError

_AREA, _ASPECT = (0.08, 1.0), (0.75, 4 / 3)  # section 4.1
Contender = Callable[[Sequence[bytes]], None]


def contenders(size: int) -> dict[str, Contender]:
    """What is measured, by name; the last is there where TensorFlow is installed."""

    def crops(reduced: bool) -> Contender:
        settings = CropSettings(size, _AREA, _ASPECT, flip=True, reduced=reduced)

        def run(files: Sequence[bytes]) -> None:
            for number, data in enumerate(files):
                random_crop(EncodedImage(data), settings, np.random.default_rng(number))

        return run

    def decode(files: Sequence[bytes]) -> None:
        for data in files:
            EncodedImage(data).decode()

    found = {
        "decode": decode,
        "decode, crop, resize": crops(False),
        "decode as large as needed, crop, resize": crops(True),
    }
    peer = _tf_data(size)
    return found if peer is None else {**found, "tf.data: decode the crop, resize": peer}


def _tf_data(size: int) -> Contender | None:
    try:
        import tensorflow as tf
    except ImportError:
        return None

    def read(data, box):
        pixels = tf.image.decode_and_crop_jpeg(data, box, channels=3)
        resized = tf.image.resize(pixels, (size, size), antialias=True)
        return tf.cast(tf.round(resized), tf.uint8)

    def run(files: Sequence[bytes]) -> None:
        boxes = np.array([_box(data, number) for number, data in enumerate(files)], np.int32)
        dataset = tf.data.Dataset.from_tensor_slices((list(files), boxes))
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        options.threading.max_intra_op_parallelism = 1
        for _ in dataset.map(read, num_parallel_calls=1).with_options(options):
            pass

    return run


def _box(data: bytes, number: int) -> tuple[int, int, int, int]:
    """Top, left, height and width, with shares as `random_crop` draws them."""
    rng = np.random.default_rng(number)
    height, width = EncodedImage(data).shape
    side = np.sqrt(rng.uniform(*_AREA))
    rows, columns = max(1, int(height * side)), max(1, int(width * side))
    return (
        int(rng.integers(height - rows + 1)),
        int(rng.integers(width - columns + 1)),
        rows,
        columns,
    )


def measure(files: Sequence[bytes], size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Times every contender.

    Args:
      files: encoded images.
      size: pixels, side of the crops.
      repeats: rounds over all contenders after the first, which does not count.

    Returns:
      By contender, median and range of images a second.
    """
    runs = contenders(size)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.monotonic()
            run(files)
            rates[name].append(len(files) / (time.monotonic() - start))
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
    flags.DEFINE_string("images", "", "Folder of JPEG files.", flag_values=values)
    flags.DEFINE_integer("size", 321, "Pixels, side of a crop.", 1, flag_values=values)
    flags.DEFINE_integer("count", 200, "Files that are read.", 1, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Rounds that count.", 1, flag_values=values)
    flags.DEFINE_string(
        "results", "experiments/results", "Folder of the table.", flag_values=values
    )


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
