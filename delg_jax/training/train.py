"""Training from a configuration: what a run needs, put together and checked."""

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
from delg_jax import workdir as artefacts
from delg_jax.configuration import flatten, require_seed
from delg_jax.data import open_training, pipeline, skips
from delg_jax.data.sources import TrainingData
from delg_jax.errors import UserError, require_choice
from delg_jax.models import variables as model_variables
from delg_jax.models.delg import Delg, build
from delg_jax.training import feature_cache, images
from delg_jax.training import optimizer as train_state
from delg_jax.training import step as train_step
from delg_jax.training.checkpoints import FOLDER, Checkpoints, start_from_checkpoint
from delg_jax.training.loop import Run

_LOG = logging.getLogger(__name__)

_DECISIVE = ("seed", "model", "data", "train")
_FREE = (  # fields under those that may change when a run goes on
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
)

# Least values of fields
_LEAST = {
    **dict.fromkeys(("steps", "accumulation_steps", "log_every", "eval_every"), 1),
    **dict.fromkeys(("checkpoint_every", "keep_checkpoints"), 1),
    **dict.fromkeys(("learning_rate", "momentum", "arcface_margin", "chance_after"), 0),
    **dict.fromkeys(("global_weight", "reconstruction_weight", "attention_weight"), 0),
}


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> dict[str, float]:
    """Trains a network, or goes on where an earlier run in `workdir` stopped.

    Args:
      config: the whole tree.
      workdir: gets `checkpoints/` and `logs/`.
      overwrite: whether a run of another configuration is deleted instead of refused.

    Returns:
      The last record of metrics, validation included.

    Raises:
      UserError: for a configuration that cannot be run, bad data, or a loss that is not finite.
    """
    root = pathlib.Path(workdir)
    with distributed.first_before_others("data"):
        data = open_training(config.data)
    config = with_classes(config, data)
    _check(config)
    module = build(config.model, **module_options(config.train))
    tx = train_state.optimizer(config.train)
    state = _initial_state(config, module, tx)
    skip_log = skips.SkipLog((root / "logs" / "skipped_events.csv").resolve())
    _claim(root, config, data, overwrite)
    batches = _batches(config, module, state, data, root, skip_log)
    with _checkpoints(root, config) as checkpoints:
        if checkpoints.latest() is not None:
            state, input_state = checkpoints.restore(state)
            if input_state:  # converted weights have none
                batches.set_state(json.loads(input_state))
            _LOG.info("resumed at step %d", int(state.step))
        run = Run(config, module, tx, data.validation, root / "logs", skip_log)
        record = run.train(train_step.replicate(state), batches, checkpoints)
    if distributed.is_first():
        skips.report(root / "logs", skip_log.read(), config.data.max_skipped)
        artefacts.write_json(root / "train_metrics.json", record)
    distributed.wait_for_all("trained")
    return record


def _claim(
    root: pathlib.Path, config: ml_collections.ConfigDict, data: TrainingData, overwrite: bool
) -> None:
    """Makes the folders those of this configuration and these images, in the first process."""
    with distributed.first_before_others("folders"):
        if not distributed.is_first():
            return
        found = images.summary(data)
        for folder in (root / "logs", root / FOLDER):
            same = functools.partial(images.require_same, folder, found)
            artefacts.claim_usable(folder, config, _sections(config), same, overwrite)


def _checkpoints(root: pathlib.Path, config: ml_collections.ConfigDict) -> Checkpoints:
    train = config.train
    return Checkpoints(
        root / FOLDER, config.model, train.keep_checkpoints, train.best_metric, config
    )


def _batches(
    config: ml_collections.ConfigDict,
    module: Delg,
    state: train_state.TrainState,
    data: TrainingData,
    root: pathlib.Path,
    skip_log: skips.SkipLog,
) -> grain.DatasetIterator:
    """The input of this process: images, or maps of a frozen backbone."""
    read = None
    if config.train.cache_features:
        read = feature_cache.build(module, state.variables, data.train, config, root, skip_log)
    size = config.train.batch_size
    shard = distributed.shard()
    return pipeline.training_batches(
        data.train, config.data, size, config.seed, skip_log, shard, read
    )


def _sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The fields that decide what a run learns."""
    return tuple(path for path in flatten(config, _DECISIVE) if path not in _FREE)


def with_classes(
    config: ml_collections.ConfigDict, data: TrainingData
) -> ml_collections.ConfigDict:
    """A copy of the tree in which `config.model.num_classes` is that of the data."""
    found = len(data.classes)
    if config.model.num_classes not in (0, found):
        rule = f"must be 0 or the {found} classes of the training data"
        raise UserError("config.model.num_classes", config.model.num_classes, rule)
    config = config.copy_and_resolve_references()
    config.model.num_classes = found
    return config.lock()


def module_options(train: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `config.train` says about the network."""
    return {
        "dtype": jnp.dtype(train.dtype),
        "freeze_backbone": train.freeze_backbone or train.heads == "local",
        "freeze_norm": train.batch_norm == "frozen",
        "norm_axis": train_step.AXIS if train.batch_norm == "sync" else None,
        "initial_scale": train.arcface_scale,
    }


def _check(config: ml_collections.ConfigDict) -> None:
    train = config.train
    require_choice("config.train.batch_norm", train.batch_norm, ("train", "frozen", "sync"))
    require_choice("config.train.dtype", train.dtype, ("float32", "bfloat16"))
    for field, least in _LEAST.items():
        if train[field] < least:
            raise UserError(f"config.train.{field}", train[field], f"must be at least {least}")
    for field in ("clip_norm", "arcface_scale"):
        if not train[field] > 0:
            raise UserError(f"config.train.{field}", train[field], "must be above 0")
    if train.batch_size < 1 or train.batch_size % (jax.device_count() * train.accumulation_steps):
        rule = f"must be a positive multiple of the {jax.device_count()} devices"
        parts = train.accumulation_steps
        rule += f" times config.train.accumulation_steps={parts}" if parts > 1 else ""
        raise UserError("config.train.batch_size", train.batch_size, rule)
    require_seed(config)
    train_state.penalty(train)
    if train.cache_features:
        feature_cache.check(config)


def _initial_state(config: ml_collections.ConfigDict, module: Delg, tx) -> train_state.TrainState:
    variables = model_variables.initialize(module, jax.random.key(config.seed))
    variables = model_variables.load_pretrained(variables, config.model)
    return train_state.create(start_from_checkpoint(variables, config), tx)
