"""Memory that a training step takes on each device, with whole and with split classifiers.

    python -m experiments.benchmarks.training_memory
    python -m experiments.benchmarks.training_memory --part=heads --classes=203094 --dtype=float32

XLA plans the memory of a program when it compiles it, so nothing is allocated and no accelerator is
needed: eight virtual CPU devices stand for those of a host. The part `heads` is everything but the
backbone and its gradient (the classifiers, the optimiser and the small layers between); `step` is
the whole step of --config. On another backend, convolutions and collectives need other temporary
arrays. Writes training_memory.json and training_memory.md into --results, next to the programs that
an earlier run planned there for the same network: planning a whole step takes minutes.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from delg_jax import configuration, json_files
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.losses import LossWeights
from delg_jax.models import resnet
from delg_jax.models.class_shards import ClassShards, map_split
from delg_jax.models.delg import Delg, build
from delg_jax.reports import tables
from delg_jax.training import optimizer, step
from delg_jax.training.optimizer import OptimizerSettings
from delg_jax.training.train import module_options

CLASSES = (100, 81_313, 203_094)  # a small set, GLDv2-clean, GLDv2
PARTS = ("heads", "step")
DTYPES = ("float32", "bfloat16")
_GIGABYTE = 1e9
_COMPILE_FAST = {"xla_backend_optimization_level": 0}  # comes after the memory is planned


def measure(
    config: ml_collections.ConfigDict, part: str, devices: int, images: int
) -> dict[str, float]:
    """Plans one step on several devices and returns the memory of each.

    Args:
      config: the whole tree, with a number of classes.
      part: one of `PARTS`.
      devices: of the host.
      images: on each device.

    Returns:
      `state_bytes` (parameters, statistics, momentum), `temporary_bytes` and `peak_bytes`, which
      also has the batch.
    """
    train, classes = config.train, config.model.num_classes
    shards = ClassShards(classes, step.AXIS, devices) if train.shard_classifier else None
    module = build(config.model, **module_options(train))
    learning = OptimizerSettings.of(train)
    tx = optimizer.create_optimizer(learning, shards)
    state = _shapes_of_state(module, tx, part)
    if shards is not None:
        state = map_split(lambda leaf: _split_shape(leaf, shards), state)
    update = step.parallel_train_step(
        state,
        module.clone(class_shards=shards),
        tx,
        LossWeights.of(train),
        optimizer.penalty(learning, shards),
        train.accumulation_steps,
    )
    batch = _shapes_of_batch(config, part, devices, images)
    lowered = update.lower(state, batch, jax.ShapeDtypeStruct((), jnp.bool_))
    found = lowered.compile(_COMPILE_FAST).memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return {
        "state_bytes": float(found.alias_size_in_bytes),
        "temporary_bytes": float(found.temp_size_in_bytes),
        "peak_bytes": float(held + found.temp_size_in_bytes),
    }


def _shapes_of_state(module: Delg, tx: Any, part: str) -> optimizer.TrainState:
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)

    def create(key: jax.Array, image: jax.Array) -> optimizer.TrainState:
        variables = module.init(key, image, method="classify")
        kept = {
            kind: {
                name: tree
                for name, tree in variables[kind].items()
                if part == "step" or name != "resnet"
            }
            for kind in ("params", "batch_stats")
        }
        return optimizer.create_state(kept, tx)

    return jax.eval_shape(create, jax.random.key(0), image)


def _split_shape(leaf: jax.ShapeDtypeStruct, shards: ClassShards) -> jax.ShapeDtypeStruct:
    shape = (shards.devices, *leaf.shape[:-1], shards.per_device)
    return jax.ShapeDtypeStruct(shape, leaf.dtype)


def _shapes_of_batch(
    config: ml_collections.ConfigDict, part: str, devices: int, images: int
) -> dict[str, jax.ShapeDtypeStruct]:
    size, first = config.data.image_size, (devices, images)
    batch = {"label": jax.ShapeDtypeStruct(first, np.int32)}
    if part == "step":
        return {**batch, "image": jax.ShapeDtypeStruct((*first, size, size, 3), np.uint8)}
    strides = (config.model.conv4_stride, 32)
    for name, stride, channels in zip(
        ("conv4", "conv5"), strides, resnet.channels(config.model.backbone), strict=True
    ):
        side = size // stride
        batch[name] = jax.ShapeDtypeStruct((*first, side, side, channels), jnp.dtype("float32"))
    return batch


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each program, in Markdown; memory in GB (10^9 bytes) on each device."""
    head = ("part", "classes", "dtype", "classifiers", "state, GB", "temporary, GB", "peak, GB")
    lines = [
        (
            str(row["part"]),
            f"{row['classes']:,}",
            str(row["dtype"]),
            f"split over {row['devices']}" if row["split"] else "whole",
            *(f"{row[f'{name}_bytes'] / _GIGABYTE:.2f}" for name in _MEASURED),
        )
        for row in rows
    ]
    return tables.markdown(head, lines)


_MEASURED = ("state", "temporary", "peak")


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="delg_r50_gld")
    text = "Part to plan, all by default; may be repeated."
    flags.DEFINE_multi_enum("part", list(PARTS), PARTS, text, flag_values=values)
    text = "Number of classes; may be repeated."
    flags.DEFINE_multi_integer("classes", list(CLASSES), text, 1, flag_values=values)
    text = "Type of the computation, all by default; may be repeated."
    flags.DEFINE_multi_enum("dtype", list(DTYPES), DTYPES, text, flag_values=values)
    flags.DEFINE_integer("devices", 8, "Devices of a host.", 1, flag_values=values)
    flags.DEFINE_integer("images", 16, "Images on each device.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Plans every program and prints the table."""
    jax.config.update("jax_num_cpu_devices", values.devices)
    model = values.config.model
    caption = (
        f"{model.backbone} at {values.config.data.image_size} px, {values.images} images on each "
        f"of {values.devices} devices, as planned by XLA for {jax.default_backend()}, "
        f"jax {jax.__version__}."
    )
    rows = _earlier(values.results, caption)
    for part in values.part:
        for classes in values.classes:
            for dtype in values.dtype:
                for split in (False, True):
                    changes = {
                        "model.num_classes": classes,
                        "train.dtype": dtype,
                        "train.shard_classifier": split,
                    }
                    config = configuration.override(values.config, changes)
                    found = measure(config, part, values.devices, values.images)
                    row = {"part": part, "classes": classes, "dtype": dtype, "split": split}
                    rows[_key(row)] = {**row, "devices": values.devices, **found}
                    print(table([rows[_key(row)]]).splitlines()[-1], file=sys.stderr)
    programs = [rows[key] for key in sorted(rows)]
    text = f"{table(programs)}\n\n{caption}\n"
    content = {"network": caption, "programs": programs}
    harness.write_result(values.results, "training_memory", content, text, config=values.config)
    print(text, end="")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["part"], row["classes"], DTYPES.index(row["dtype"]), row["split"])


def _earlier(results: str, caption: str) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """The programs of an earlier run, if it was of the same network."""
    path = pathlib.Path(results) / "training_memory.json"
    if not path.is_file():
        return {}
    content: Any = json_files.read(path, "results", json_files.anything)
    same = content["network"] == caption
    return {_key(row): row for row in content["programs"]} if same else {}


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
