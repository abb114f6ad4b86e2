"""Training from a configuration: checks it, prepares state and input, and runs the loop."""

import functools
import json
import logging
import pathlib
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections

from delg_jax import distributed
from delg_jax.configuration import flatten, require_seed
from delg_jax.data import open_training, pipeline, skips
from delg_jax.data.sources import TrainingData
from delg_jax.errors import UserError, require_choice
from delg_jax.models.delg import Delg, build
from delg_jax.models.variables import initialize, load_pretrained
from delg_jax.training import feature_cache, optimizer
from delg_jax.training.checkpoints import FOLDER, Checkpoints
from delg_jax.training.data_fingerprint import fingerprint, require_same
from delg_jax.training.loop import TrainingLoop
from delg_jax.training.placement import AXIS, class_shards, place
from delg_jax.training.trained_network import start_from_checkpoint
from delg_jax.workdir import claim_usable, write_json

_LOG = logging.getLogger(__name__)

_DECISIVE = ("seed", "model", "data", "train")
_FREE = (  # fields under those that may change when a run resumes
    "data.root",  # the images themselves are compared
    "data.tfds_dir",
    "data.beam_options",
    "data.memory_megabytes",
    "data.max_skipped",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.best_metric",
    "train.chance_after",
    "train.tensorboard",
    "train.cache_gigabytes",
    "train.shard_classifier",
)
_MINIMUM = {
    **dict.fromkeys(("steps", "accumulation_steps", "log_every", "eval_every"), 1),
    **dict.fromkeys(("checkpoint_every", "keep_checkpoints"), 1),
    **dict.fromkeys(("learning_rate", "momentum", "arcface_margin", "chance_after"), 0),
    **dict.fromkeys(("global_weight", "reconstruction_weight", "attention_weight"), 0),
}


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> dict[str, float]:
    """Trains a network, or resumes the run in `workdir`.

    Args:
      config: the whole tree.
      workdir: gets `checkpoints/` and `logs/`.
      overwrite: whether to delete a run of another configuration instead of refusing it.

    Returns:
      The last record of metrics, including validation.

    Raises:
      UserError: if the configuration or the data is invalid, or the loss becomes NaN or infinite.
    """
    root = pathlib.Path(workdir)
    with distributed.first_before_others("data"):
        data = open_training(config.data)
    config = with_classes(config, data)
    _check(config)
    module = build(config.model, **module_options(config.train))
    shards = class_shards(config)
    tx = optimizer.create_optimizer(config.train, shards)
    variables = load_pretrained(initialize(module, jax.random.key(config.seed)), config.model)
    state = optimizer.create_state(start_from_checkpoint(variables, config), tx)
    skip_log = skips.SkipLog((root / "logs" / "skipped_events.csv").resolve())
    _claim_folders(root, config, data, overwrite)
    batches = _open_batches(config, module, state, data, root, skip_log)
    with Checkpoints(
        root / FOLDER,
        config.model,
        config.train.keep_checkpoints,
        config.train.best_metric,
        config,
    ) as checkpoints:
        if checkpoints.latest() is not None:
            state, input_state = checkpoints.restore(state)
            if input_state:  # converted weights have none
                batches.set_state(json.loads(input_state))
            _LOG.info("resumed at step %d", int(state.step))
        loop = TrainingLoop(
            config.train,
            config.data,
            module.clone(class_shards=shards),
            tx,
            data.validation,
            root / "logs",
            skip_log,
        )
        record = loop.run(place(state, shards), batches, checkpoints)
    if distributed.is_first():
        skips.report(root / "logs", skip_log.read(), config.data.max_skipped)
        write_json(root / "train_metrics.json", record)
    distributed.wait_for_all("trained")
    return record


def with_classes(
    config: ml_collections.ConfigDict, data: TrainingData
) -> ml_collections.ConfigDict:
    """A copy of the tree with the number of classes of the data in `config.model.num_classes`."""
    found = len(data.classes)
    if config.model.num_classes not in (0, found):
        rule = f"must be 0 or the {found} classes of the training data"
        raise UserError("config.model.num_classes", config.model.num_classes, rule)
    config = config.copy_and_resolve_references()
    config.model.num_classes = found
    return config.lock()


def _check(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError that names the first invalid field of `config.train`."""
    train = config.train
    require_choice("config.train.batch_norm", train.batch_norm, ("train", "frozen", "sync"))
    require_choice("config.train.dtype", train.dtype, ("float32", "bfloat16"))
    for field, minimum in _MINIMUM.items():
        if train[field] < minimum:
            raise UserError(f"config.train.{field}", train[field], f"must be at least {minimum}")
    if not 0 <= train.norm_momentum < 1:
        rule = "must be from 0 (the convention's) to below 1"
        raise UserError("config.train.norm_momentum", train.norm_momentum, rule)
    for field in ("clip_norm", "arcface_scale"):
        if not train[field] > 0:
            raise UserError(f"config.train.{field}", train[field], "must be above 0")
    if train.batch_size < 1 or train.batch_size % (jax.device_count() * train.accumulation_steps):
        rule = f"must be a positive multiple of the {jax.device_count()} devices"
        steps = train.accumulation_steps
        rule += f" times config.train.accumulation_steps={steps}" if steps > 1 else ""
        raise UserError("config.train.batch_size", train.batch_size, rule)
    require_seed(config)
    optimizer.penalty(train)
    if train.cache_features:
        feature_cache.check(config)


def module_options(train: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields of `Delg` that `config.train` decides."""
    return {
        "dtype": jnp.dtype(train.dtype),
        "freeze_backbone": train.freeze_backbone or train.heads == "local",
        "freeze_norm": train.batch_norm == "frozen",
        "norm_axis": AXIS if train.batch_norm == "sync" else None,
        "norm_momentum": train.norm_momentum,
        "initial_scale": train.arcface_scale,
    }


def _claim_folders(
    root: pathlib.Path, config: ml_collections.ConfigDict, data: TrainingData, overwrite: bool
) -> None:
    """Binds the folders of the run to this configuration and these images, in the first process."""
    decisive = tuple(path for path in flatten(config, _DECISIVE) if path not in _FREE)
    with distributed.first_before_others("folders"):
        if not distributed.is_first():
            return
        found = fingerprint(data)
        for folder in (root / "logs", root / FOLDER):
            same = functools.partial(require_same, folder, found)
            claim_usable(folder, config, decisive, same, overwrite)


def _open_batches(
    config: ml_collections.ConfigDict,
    module: Delg,
    state: optimizer.TrainState,
    data: TrainingData,
    root: pathlib.Path,
    skip_log: skips.SkipLog,
) -> grain.DatasetIterator:
    """The input of this process: images, or cached maps of a frozen backbone."""
    read = None
    if config.train.cache_features:
        read = feature_cache.build(module, state.variables, data.train, config, root, skip_log)
    return pipeline.training_batches(
        data.train,
        config.data,
        config.train.batch_size,
        config.seed,
        skip_log,
        distributed.shard(),
        read,
    )
