"""A feature store of a million images: size, time to open, memory, and speed beside a plain read.

    python -m experiments.benchmarks.store_reading --store=DIR

Writes the store if DIR has none (about 13 GB for a million images). Each pass runs in its own
process, after the store is dropped from the system's file cache. Linux only. Writes
store_reading.json and store_reading.md into --results.
"""

import multiprocessing
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation.cost import measured
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress
from delg_jax.search.batching import read_ahead

_GLOBAL_DIM, _LOCAL_DIM, _FEATURES, _CHUNK = 2048, 128, 300, 1024
_FEW, _STRONGEST = 200, 200  # images drawn at random, and features of each, that are read


def write(folder: pathlib.Path, images: int) -> FeatureStore:
    """Writes a store of random features; all chunks hold the same images in different orders."""
    layout = Layout(_CHUNK, "sign", "float16", _FEATURES)
    names = [f"images/{number:07d}.jpg" for number in range(images)]
    store = FeatureStore.prepare(folder, names, layout)
    rng = np.random.default_rng(0)
    rows = [_image(rng) for _ in range(_CHUNK)]
    with Progress("write", images) as progress:
        for run in store.missing():
            order = rng.permutation(_CHUNK)[: len(run)]
            store.write(run, [rows[row] for row in order], np.full((len(run), 2), 1024))
            progress.advance(len(run))
    store.finish()
    return store


def _image(rng: np.random.Generator) -> Features:
    descriptor = rng.standard_normal(_GLOBAL_DIM, np.float32)
    local = LocalFeatures(
        locations=1024 * rng.random((_FEATURES, 2), np.float32),
        scales=2.0 ** rng.integers(-2, 5, _FEATURES).astype(np.float32),
        scores=rng.random(_FEATURES, np.float32),
        descriptors=rng.standard_normal((_FEATURES, _LOCAL_DIM), np.float32),
        mask=np.ones(_FEATURES, bool),
    )
    return Features(descriptor / np.linalg.norm(descriptor), local)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _drop_cached(folder: pathlib.Path) -> None:
    """Drops the store from the system's file cache."""
    for path in _files(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def open_store(folder: pathlib.Path, megabytes: float) -> int:
    """Opens the store; returns the number of images."""
    return len(FeatureStore(folder, megabytes))


def read_raw(folder: pathlib.Path, megabytes: float) -> int:
    """Reads every file of the store; returns the bytes."""
    del megabytes
    total = 0
    for path in _files(folder):
        with path.open("rb", buffering=0) as file:
            while block := file.read(1 << 22):
                total += len(block)
    return total


def read_features(folder: pathlib.Path, megabytes: float) -> int:
    """Reads every feature, checking checksums, as search does; returns the bytes in memory."""
    store = FeatureStore(folder, megabytes)
    total = 0
    for block in _blocks(store):
        total += block.nbytes
    return total


def read_few(folder: pathlib.Path, megabytes: float) -> int:
    """Reads the strongest features of a few images drawn at random, one at a time, in order.

    Returns:
      The number of images.
    """
    rows = FeatureStore(folder, megabytes).local_features(_STRONGEST, packed=True).descriptors
    count = min(_FEW, len(rows))
    for row in np.sort(np.random.default_rng(0).choice(len(rows), count, replace=False)):
        np.asarray(rows[int(row)])
    return count


def _blocks(store: FeatureStore) -> Iterator[np.ndarray]:
    local = store.local_features(0, packed=True)
    for _, arrays in read_ahead((store.global_descriptors(), *local), _CHUNK):
        yield from arrays


def _measured(call: Callable[[pathlib.Path, float], int], folder: str, megabytes: float) -> tuple:
    """Seconds, result, and megabytes by which the process grew at its peak."""
    with measured() as cost:
        result = call(pathlib.Path(folder), megabytes)
    return cost.seconds, result, cost.megabytes


def measure(folder: pathlib.Path, megabytes: float) -> dict[str, dict[str, float]]:
    """Returns `seconds`, `result` and `megabytes` of each pass, by name."""
    found = {}
    context = multiprocessing.get_context("spawn")
    for call in (open_store, read_raw, read_features, read_few):
        _drop_cached(folder)
        with context.Pool(1) as pool:
            seconds, result, grown = pool.apply(_measured, (call, str(folder), megabytes))
        found[call.__name__] = {"seconds": seconds, "result": result, "megabytes": grown}
    return found


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "store", None, "Folder of the store.", required=True)
    flags.DEFINE_integer("images", 1_000_000, "Images of a new store.", 1, flag_values=values)
    text = "config.data.memory_megabytes of the reader."
    flags.DEFINE_float("memory", 256.0, text, 0.0, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Writes the store if there is none, measures it and prints the table."""
    folder = pathlib.Path(values.store)
    is_new, start = not (folder / "store.json").is_file(), time.monotonic()
    store = write(folder, values.images)
    seconds = time.monotonic() - start if is_new else None
    found = measure(folder, values.memory)
    raw, features = found["read_raw"], found["read_features"]
    size = raw["result"]
    content = {
        "images": len(store),
        "bytes": size,
        "layout": store.layout._asdict(),
        "write_seconds": seconds,
        "memory_megabytes": values.memory,
        **found,
    }
    rate = {name: size / found[name]["seconds"] / 1e6 for name in ("read_raw", "read_features")}
    few = 1000 * found["read_few"]["seconds"] / found["read_few"]["result"]
    lines = [
        f"| {len(store)} images, {size / 1e9:.2f} GB | |",
        "| --- | ---: |",
        f"| open | {1000 * found['open_store']['seconds']:.0f} ms |",
        f"| plain read of the files | {rate['read_raw']:.0f} MB/s |",
        f"| every feature, with checksums | {rate['read_features']:.0f} MB/s |",
        f"| ratio | {raw['seconds'] / features['seconds']:.2f} |",
        f"| one image of {found['read_few']['result']} drawn at random, "
        f"{_STRONGEST} of its {_FEATURES} features | {few:.2f} ms |",
        f"| peak memory of reading, with a cache of {values.memory:.0f} MB "
        f"| {features['megabytes']:.0f} MB |",
    ]
    text = "\n".join(lines) + "\n"
    harness.write_result(values.results, "store_reading", content, text)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
