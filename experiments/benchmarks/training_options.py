"""What each option of training costs: time per step and peak memory.

    python -m experiments.benchmarks.training_options --workdir=runs/training_options
    python -m experiments.benchmarks.training_options --workdir=runs/gld --config=delg_r50_gld

Each option changes a few fields of --config, and runs in its own process on random images. Writes
training_options.json and training_options.md into --results. Memory is the peak of the first device
if the backend reports it, else of the process, which takes a few hundred MB by itself.
"""

import concurrent.futures
import multiprocessing
import resource
import sys
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags

from delg_jax import configuration
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.losses import LossWeights
from delg_jax.models.delg import build
from delg_jax.models.variables import initialize
from delg_jax.training import feature_cache, optimizer, step
from delg_jax.training.optimizer import OptimizerSettings
from delg_jax.training.train import module_options

OPTIONS: dict[str, dict[str, Any]] = {
    "joint, float32": {},
    "bfloat16": {"train.dtype": "bfloat16"},
    "2 accumulation steps": {"train.accumulation_steps": 2},
    "4 accumulation steps": {"train.accumulation_steps": 4},
    "BatchNorm synchronised": {"train.batch_norm": "sync"},
    "BatchNorm frozen": {"train.batch_norm": "frozen"},
    "weight decay": {"train.weight_decay": 1e-4},
    "classifiers split over devices": {"train.shard_classifier": True},
    "gradients not stopped": {"model.stop_gradient": False},
    "global head only": {"train.heads": "global"},
    "local head only": {"train.heads": "local"},
    "frozen backbone": {"train.freeze_backbone": True},
    "frozen backbone, cached maps": {
        "train.freeze_backbone": True,
        "train.cache_features": True,
    },
}
_CLASSES = 100  # if the configuration gives no number


def measure(config: ml_collections.ConfigDict, steps: int) -> dict[str, float]:
    """Times training steps on random images.

    Args:
      config: the whole tree.
      steps: timed, after one that compiles.

    Returns:
      `step_seconds` of the fastest step, `images_per_second`, `compile_seconds` and `peak_bytes`.
    """
    train = config.train
    module = build(config.model, **module_options(train))
    shards = step.class_shards(config.model.num_classes, config.train.shard_classifier)
    learning = OptimizerSettings.of(train)
    tx = optimizer.create_optimizer(learning, shards)
    variables = initialize(module, jax.random.key(0))
    state = step.place(optimizer.create_state(variables, tx), shards)
    update = step.parallel_train_step(
        state,
        module.clone(class_shards=shards),
        tx,
        LossWeights.of(train),
        optimizer.penalty(learning, shards),
        train.accumulation_steps,
    )
    batch = step.split_over_devices(_batch(config, module, variables))

    def train_step() -> None:
        nonlocal state
        state, metrics = update(state, batch, False)
        jax.block_until_ready((state, metrics))

    (timing,) = harness.time_in_turn([train_step], steps)
    return {
        "step_seconds": timing.fastest,
        "images_per_second": train.batch_size / timing.fastest,
        "compile_seconds": timing.first_call - timing.fastest,
        "peak_bytes": _peak_bytes(),
    }


def _batch(config: ml_collections.ConfigDict, module: Any, variables: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    count, size = config.train.batch_size, config.data.image_size
    labels = rng.integers(0, config.model.num_classes, count, np.int32)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    if not config.train.cache_features:
        return {"image": images, "label": labels}
    outputs = jax.eval_shape(module.apply, variables, images)
    maps = {
        name: np.maximum(rng.normal(size=getattr(outputs, name).shape), 0).astype(np.float32)
        for name in feature_cache.MAPS
    }
    return {**maps, "label": labels}


def _peak_bytes() -> float:
    stats = jax.local_devices()[0].memory_stats() or {}
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return float(stats.get("peak_bytes_in_use", process))


def configured(
    base: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Returns the configuration of one option, with a number of classes."""
    classes = base.model.num_classes or _CLASSES
    return configuration.override(base, {"model.num_classes": classes, **overrides})


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a row for each option, in Markdown; shares are of the first row."""
    first = next(iter(rows.values()))
    lines = [
        "| option | step, ms | share | images/s | peak memory, MB | share |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        time_share = row["step_seconds"] / first["step_seconds"]
        memory_share = row["peak_bytes"] / first["peak_bytes"]
        lines.append(
            f"| {name} | {1e3 * row['step_seconds']:.1f} | {time_share:.2f} "
            f"| {row['images_per_second']:.1f} | {row['peak_bytes'] / 1e6:.0f} "
            f"| {memory_share:.2f} |"
        )
    return "\n".join(lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="quickstart")
    flags.DEFINE_integer("steps", 10, "Timed steps.", 1, flag_values=values)
    text = "Option to measure, all by default; may be repeated."
    names = list(OPTIONS)
    flags.DEFINE_multi_enum("option", names, names, text, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures every option and prints the table."""
    spawn = multiprocessing.get_context("spawn")
    rows = {}
    for name in values.option:
        config = configured(values.config, OPTIONS[name])
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            rows[name] = pool.submit(measure, config, values.steps).result()
        print(f"{name}: {rows[name]['step_seconds']:.3f} s per step", file=sys.stderr)
    device = jax.devices()[0].device_kind
    content = {
        "config": configuration.flatten(values.config, ("model", "data.image_size", "train")),
        "options": rows,
    }
    model, train = values.config.model, values.config.train
    caption = (
        f"{model.backbone} at {values.config.data.image_size} px, batch {train.batch_size}, on "
        f"{jax.device_count()} x {device} ({multiprocessing.cpu_count()} cores), "
        f"jax {jax.__version__}; shares are of the first row."
    )
    text = f"{table(rows)}\n\n{caption}\n"
    harness.write_result(values.results, "training_options", content, text, config=values.config)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
