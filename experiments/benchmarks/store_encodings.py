r"""What each encoding of local descriptors costs in bytes, and what it does to retrieval.

    python -m experiments.benchmarks.store_encodings --config=configs/revisited.py:real \\
        --config.data.root=DIR --workdir=WORKDIR

Extracts once with float32, turns that store into the other encodings, and evaluates each. The
cosine of signs is smaller than that of the vectors: 1 - 2 arccos(c) / pi in the mean, for vectors
of random directions. With signs, thresholds are therefore also tried moved by this rule. Writes
store_encodings.json and store_encodings.md into --results.
"""

import math
import pathlib
import sys

import ml_collections
import numpy as np
from absl import flags

from delg_jax import configuration
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation import evaluate
from delg_jax.features import Extracted, Features, FeatureStore, LocalFeatures, extract
from delg_jax.features.experiment import sections
from delg_jax.features.storage.encodings import ENCODINGS
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store_writing import open_for_writing
from delg_jax.progress import Progress
from delg_jax.workdir import Output

METHODS = ("global", "global+sp", "local")
PAPER_GB = 485  # of a million images with float local features (facts of the first paper)


def transcode(
    extracted: Extracted, config: ml_collections.ConfigDict, folder: pathlib.Path
) -> None:
    """Writes the features of an experiment as another configuration would have stored them.

    Args:
      extracted: with float32 descriptors.
      config: the whole tree, with the other encoding.
      folder: workdir of the result.
    """
    for source in (extracted.database, extracted.queries):
        target = folder / "features" / source.folder.name
        output = Output.of(target, config, sections(config), {"weights": extracted.weights})
        layout, memory = Layout.of(config.extract), config.data.memory_megabytes
        with open_for_writing(output, layout, memory, source.names) as store:
            _copy(source, store)
            if (projection := source.read_pca()) is not None:
                store.write_pca(projection)


def _copy(source: FeatureStore, store: FeatureStore) -> None:
    skipped, sizes = source.skipped_places(), source.sizes()
    pooled, local = source.global_descriptors(), source.local_features(0)
    with Progress(f"encode {store.folder.parent.parent.name}", len(source)) as progress:
        for run in store.missing():
            part = slice(run.start, run.stop)
            fields = [np.asarray(field[part]) for field in local]
            rows = [
                skipped.get(
                    row,
                    Features(pooled[row], LocalFeatures(*(f[row - run.start] for f in fields))),
                )
                for row in run
            ]
            store.write(run, rows, sizes[part])
            progress.advance(len(run))
    store.finish()


def size(store: FeatureStore) -> dict[str, float]:
    """Bytes on disk per image, by array."""
    return {
        name: sum(path.stat().st_size for path in array.folder.iterdir()) / len(store)
        for name, array in store.arrays()
    }


def of_signs(cosine: float) -> float:
    """The cosine of the signs of random vectors at this cosine, in the mean."""
    return 1 - 2 * math.acos(cosine) / math.pi


def variants(config: ml_collections.ConfigDict) -> dict[str, tuple[str, dict[str, object]]]:
    """What is evaluated: by name, the encoding, and fields that differ."""
    found = {encoding: (encoding, {}) for encoding in ENCODINGS}
    distance = config.rerank.sp.max_distance
    moved = of_signs(1 - distance**2 / 2)
    fields = {
        "search.threshold": of_signs(config.search.threshold),
        "rerank.sp.max_distance": math.sqrt(2 - 2 * moved),
    }
    return {**found, "sign, thresholds moved": ("sign", fields)}


def measure(config: ml_collections.ConfigDict, root: pathlib.Path) -> dict[str, dict]:
    """Evaluates every variant; by name its bytes per image and its metrics."""
    config = configuration.override(config, {"eval.methods": METHODS})
    base = configuration.override(config, {"extract.local_encoding": "float32"})
    extracted = extract(base, root / "float32")
    found = {}
    for name, (encoding, fields) in variants(config).items():
        mine = configuration.override(config, {"extract.local_encoding": encoding, **fields})
        folder = root / name.replace(", ", "_").replace(" ", "_")
        if encoding != "float32":
            transcode(extracted, mine, folder)
        metrics = evaluate(mine, folder)
        store = FeatureStore(folder / "features" / "database")
        found[name] = {"bytes": size(store), **metrics}
    return found


def table(found: dict[str, dict]) -> str:
    """A Markdown table."""
    titles = [f"{method} M / H" for method in METHODS]
    lines = [
        f"| on disk | descriptors, KB/image | all, KB/image | GB per million | "
        f"{' | '.join(titles)} |",
        "| --- |" + " ---: |" * (3 + len(METHODS)),
    ]
    for name, row in found.items():
        total = sum(row["bytes"].values())
        descriptors = sum(v for n, v in row["bytes"].items() if n.startswith("descriptor"))
        cells = [f"{descriptors / 1e3:.1f}", f"{total / 1e3:.1f}", f"{total / 1e3:.0f}"]
        for method in METHODS:
            values = row["methods"][method]
            cells.append(f"{values['medium']['map']:.2f} / {values['hard']['map']:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| the paper, float | | | {PAPER_GB} | |" + " |" * (len(METHODS) - 1))
    return "\n".join(lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv)
    arguments.define_path(values, "results", "experiments/results", "Of the table.")


def run(values: flags.FlagValues) -> None:
    """Evaluates every encoding and prints the table."""
    found = measure(values.config, pathlib.Path(values.workdir))
    text = f"{table(found)}\n"
    harness.write_result(values.results, "store_encodings", found, text, config=values.config)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
