"""The training loop: input, steps, validation, checkpoints, metrics."""

import json
import logging
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.configuration import flatten
from delg_jax.data import open_training, pipeline, skips
from delg_jax.data.sources import ImageSource, TrainingData
from delg_jax.errors import UserError, require_choice
from delg_jax.models import variables as model_variables
from delg_jax.models.delg import Delg, build
from delg_jax.progress import Progress
from delg_jax.training import state as train_state
from delg_jax.training import step as train_step
from delg_jax.training.checkpoints import FOLDER, Checkpoints, start_from_checkpoint
from delg_jax.training.metrics import MetricsWriter

_LOG = logging.getLogger(__name__)

_DECISIVE = ("seed", "model", "data", "train")
_FREE = (  # fields under those that may change when a run goes on
    "data.max_skipped",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
)


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
    data = open_training(config.data)
    config = with_classes(config, data)
    _check(config)
    module = build(config.model, **module_options(config.train))
    tx = train_state.optimizer(config.train)
    state = _initial_state(config, module, tx)
    skip_log = skips.SkipLog((root / "logs" / "skipped_events.csv").resolve())
    batches = pipeline.training_batches(
        data.train,
        config.data,
        config.train.batch_size // jax.process_count(),
        config.seed,
        skip_log,
        (jax.process_index(), jax.process_count()),
    )
    for folder in (root / "logs", root / FOLDER):
        artefacts.claim(folder, config, _sections(config), overwrite)
    with Checkpoints(root / FOLDER, config.model, config.train.keep_checkpoints) as checkpoints:
        if checkpoints.latest() is not None:
            state, input_state = checkpoints.restore(state)
            if input_state:  # converted weights have none
                batches.set_state(json.loads(input_state))
            _LOG.info("resumed at step %d", int(state.step))
        writer = MetricsWriter(root / "logs", int(state.step))
        run = _Run(config, module, tx, data.validation, skip_log, writer, checkpoints)
        record = run.train(state, batches)
    skips.report(root / "logs", skip_log.read(), config.data.max_skipped)
    artefacts.write_json(root / "train_metrics.json", record)
    return record


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
    if train.batch_size < 1 or train.batch_size % jax.device_count():
        rule = f"must be a positive multiple of the {jax.device_count()} devices"
        raise UserError("config.train.batch_size", train.batch_size, rule)
    if config.seed < 0:
        raise UserError("config.seed", config.seed, "must not be negative")
    for field in ("steps", "log_every", "eval_every", "checkpoint_every"):
        if train[field] < 1:
            raise UserError(f"config.train.{field}", train[field], "must be at least 1")


def _initial_state(config: ml_collections.ConfigDict, module: Delg, tx) -> train_state.TrainState:
    variables = model_variables.initialize(module, jax.random.key(config.seed))
    variables = model_variables.load_pretrained(variables, config.model)
    state = train_state.create(start_from_checkpoint(variables, config), tx)
    return train_step.replicate(state)


class _Run:
    """One run: what stays the same from step to step."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        module: Delg,
        tx,
        validation: ImageSource,
        skip_log: skips.SkipLog,
        writer: MetricsWriter,
        checkpoints: Checkpoints,
    ) -> None:
        weights = train_step.loss_weights(config.train)
        self._config, self._validation, self._skip_log = config, validation, skip_log
        self._writer, self._checkpoints = writer, checkpoints
        self._train_step = train_step.parallel_train_step(module, tx, weights)
        self._eval_step = train_step.parallel_eval_step(module, weights)
        self._learning_rate = train_state.learning_rate(config.train)

    def train(self, state: train_state.TrainState, batches) -> dict[str, float]:
        """Runs all steps that are left and returns the last record."""
        train = self._config.train
        first, record = int(state.step), {}
        start = time.monotonic()
        with Progress("train", train.steps, "step", done=first) as progress:
            for step in range(first + 1, train.steps + 1):
                batch = train_step.split_over_devices(next(batches))
                state, metrics = self._train_step(state, batch)
                last = step == train.steps
                saves = last or step % train.checkpoint_every == 0
                # Also before each checkpoint, because it finds a network that diverged
                if saves or step % train.log_every == 0:
                    record = self._log(step, metrics, start, step - first)
                if last or step % train.eval_every == 0:
                    record |= self._writer.write(step, self.evaluate(state))
                if saves:
                    self._checkpoints.save(state, json.dumps(_plain(batches.get_state())))
                progress.advance(note=f"loss {record.get('loss', math.nan):.3f}")
        return record or self._writer.read(train.steps)

    def _log(self, step: int, metrics: dict, start: float, done: int) -> dict[str, float]:
        rate = done * self._config.train.batch_size / (time.monotonic() - start)
        extra = {"learning_rate": self._learning_rate(step - 1), "images_per_second": rate}
        record = self._writer.write(step, {**metrics, **extra})
        bad = sorted(name for name, value in record.items() if not math.isfinite(value))
        if bad:
            rule = f"training diverged at step {step}: {', '.join(bad)} not finite; lower it"
            raise UserError("config.train.learning_rate", self._config.train.learning_rate, rule)
        skipped = self._skip_log.read()
        if len(skipped) > self._config.data.max_skipped:
            skips.report(self._skip_log.path.parent, skipped, self._config.data.max_skipped)
        return record

    def evaluate(self, state: train_state.TrainState) -> dict[str, float]:
        """Means over the validation images, names with the prefix `validation_`."""
        totals: dict[str, float] = {}
        batches = pipeline.validation_batches(
            self._validation, self._config.data, self._config.train.batch_size, self._skip_log
        )
        for batch in batches:
            sums = jax.device_get(self._eval_step(state, train_step.split_over_devices(batch)))
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        count = max(totals.pop("count", 0.0), 1.0)
        return {f"validation_{name}": total / count for name, total in totals.items()}


def _plain(value: Any) -> Any:
    """A Grain iterator's state as JSON values."""
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in value.items()}
    return value.decode() if isinstance(value, bytes) else value
