"""The training loop: steps, metrics, validation and checkpoints, until the end or a stop."""

import contextlib
import dataclasses
import functools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
import ml_collections
import numpy as np
import optax

from delg_jax import distributed
from delg_jax.data import pipeline, skips
from delg_jax.data.sources import ImageSource, SelectedSource
from delg_jax.errors import UserError
from delg_jax.losses import LossWeights
from delg_jax.models.delg import Delg
from delg_jax.progress import Progress
from delg_jax.training import health, optimizer
from delg_jax.training.checkpoints import ATTENTION_QUANTILES, Checkpoints
from delg_jax.training.health import InputWait
from delg_jax.training.interruption import StopRequest
from delg_jax.training.metrics import MetricsWriter
from delg_jax.training.optimizer import OptimizerSettings, TrainState
from delg_jax.training.step import (
    parallel_eval_step,
    parallel_train_step,
    split_over_devices,
    to_host,
)

_LOG = logging.getLogger(__name__)

VALIDATION = "validation_"  # prefix of metrics


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """The steps of a run and what happens between them; most names are those of `config.train`.

    Attributes:
      optimizer: what learns, and in how many steps.
      weights: of the losses.
      batch_size: images in an update of all processes.
      accumulation_steps: parts into which a batch is split.
      log_every: updates between records of metrics.
      eval_every: updates between validations.
      checkpoint_every: updates between checkpoints.
      best_metric: its best checkpoint is kept; "" for none.
      chance_after: updates after which validation accuracy at chance is reported.
      tensorboard: whether to write metrics and attention for TensorBoard.
      wandb: project of Weights & Biases; "" for none.
    """

    optimizer: OptimizerSettings
    weights: LossWeights
    batch_size: int
    accumulation_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    best_metric: str
    chance_after: int
    tensorboard: bool
    wandb: str

    @classmethod
    def of(cls, train: ml_collections.ConfigDict) -> Self:
        """The settings of `config.train`; raises a UserError for a wrong value."""
        names = [field.name for field in dataclasses.fields(cls)]
        own = {name: train[name] for name in names if name in train}
        return cls(OptimizerSettings.of(train), LossWeights.of(train), **own)


class TrainingLoop:
    """Takes the steps of a run; records metrics, validates and saves on the way.

    Args:
      settings: steps, losses, and when to log, validate and save.
      images: how images are read.
      module: the network.
      tx: the optimiser.
      validation: labelled images; may be empty.
      folder: gets the metrics.
      skip_log: list of bad images.
    """

    def __init__(
        self,
        settings: LoopSettings,
        images: pipeline.InputSettings,
        module: Delg,
        tx: optax.GradientTransformation,
        validation: ImageSource,
        folder: pathlib.Path,
        skip_log: skips.SkipLog,
    ) -> None:
        self._settings, self._images = settings, images
        self._skip_log, self._folder = skip_log, folder
        self._module, self._tx = module, tx
        self._validation = validation
        self._learning_rate = optimizer.learning_rate(settings.optimizer)
        heads = settings.optimizer.heads
        self._diagnosis = health.Diagnosis(
            heads,
            module.local_head and module.attention == "learned" and heads != "global",
            module.initial_scale,
            validation.labels,
            settings.chance_after,
        )
        self._nonfinite: list[jax.Array] = []  # of each step since the last record
        if not len(validation):
            text = "no validation images: only losses of training are recorded"
            best = ", and no checkpoint is kept as the best" if settings.best_metric else ""
            _LOG.warning(text + best)

    def run(
        self,
        state: TrainState,
        batches: Iterator[pipeline.Batch],
        checkpoints: Checkpoints,
        stop: StopRequest,
        validated: bool = True,
    ) -> dict[str, float]:
        """Takes all remaining steps and returns the last record of metrics.

        Args:
          state: to start from, on all devices.
          batches: of this process, from that of the next step.
          checkpoints: of the run.
          stop: a request to stop.
          validated: False if the validation at the step of `state` must be repeated.

        Raises:
          Interrupted: after a request to stop and the checkpoint that follows it.
          UserError: if a tensor is not finite, or too many images are bad.
        """
        settings, first = self._settings, int(state.step)
        steps, step = settings.optimizer.steps, first
        record: dict[str, float] = {}
        metrics: dict[str, Any] = {}
        self._writer = MetricsWriter(self._folder, first, settings.tensorboard, settings.wandb)
        self._clock = (time.monotonic(), first)
        self._input_wait = InputWait()
        self._compile(state)
        with (
            contextlib.closing(self._writer),
            self._input_wait,
            Progress("train", steps, "step", done=first) as progress,
        ):
            if not validated:
                record = self._writer.read(step)
                validated = self._evaluate(state, step, stop, record)
                self._save(checkpoints, state, record, validated)
            arriving = self._input_wait.batches(stop.items(self._good(batches)))
            for step, batch in zip(range(first + 1, steps + 1), arriving, strict=False):
                before, last = metrics, step == steps
                validates = last or step % settings.eval_every == 0
                saves = last or step % settings.checkpoint_every == 0
                # Also before each checkpoint, because this detects divergence
                logs = saves or validates or step % settings.log_every == 0
                state, metrics = self._train_step(state, split_over_devices(batch), logs)
                self._input_wait.stepped(metrics)
                jax.block_until_ready(before)  # a request to stop must not wait for many steps
                self._nonfinite.append(metrics.pop("nonfinite"))
                if logs:
                    record = self._log(step, metrics, state, checkpoints.latest())
                if validates:
                    validated = self._evaluate(state, step, stop, record)
                if saves or not validated or (validates and checkpoints.is_best(record)):
                    self._save(checkpoints, state, record, validated)
                progress.advance(note=f"loss {record['loss']:.3f}" if "loss" in record else "")
            if step < steps or not validated:
                if first < step != checkpoints.latest():
                    self._save_between(checkpoints, state, metrics, record)
                _LOG.info("stopped at step %d", step)
                raise stop.interruption()
        return record or self._writer.read(steps)

    def _good(self, batches: Iterator[pipeline.Batch]) -> Iterator[pipeline.Batch]:
        """Yields the batches; if there are none, the error says which images are bad."""
        while True:
            try:
                batch = next(batches)
            except Exception:
                self._check_skipped()
                raise
            yield batch

    def _compile(self, state: TrainState) -> None:
        """Prepares both steps for a state of this structure."""
        weights, parts = self._settings.weights, self._settings.accumulation_steps
        penalty = optimizer.penalty(self._settings.optimizer, self._module.class_shards)
        self._train_step = parallel_train_step(
            state, self._module, self._tx, weights, penalty, parts
        )
        eval_step = parallel_eval_step(state, self._module, weights, penalty)
        batch_size = self._settings.batch_size // parts
        self._validate = Validation(
            self._validation, self._images, batch_size, eval_step, self._skip_log
        )

    def _log(
        self, step: int, metrics: dict[str, Any], state: TrainState, saved: int | None
    ) -> dict[str, float]:
        """Writes the metrics of a step; raises if the run diverged or skipped too many images."""
        values = jax.device_get(metrics)  # waits for the step
        (since, done), now = self._clock, time.monotonic()
        self._clock = (now, step)
        seconds = (now - since) / (step - done)
        rate = float(self._learning_rate(step - 1))
        if "momentum_norm" in values:
            values["update_norm"] = rate * values.pop("momentum_norm")
        values |= {
            "learning_rate": rate,
            "step_seconds": seconds,
            "images_per_second": self._settings.batch_size / seconds,
            "input_wait_share": self._input_wait.share(),
            **_device_memory(),
        }
        values |= self._diagnosis.examine(step, values)
        record = self._writer.write(step, values)
        self._check_finite(step, record, state, saved)
        self._check_skipped()
        return record

    def _check_finite(
        self, step: int, record: dict[str, float], state: TrainState, saved: int | None
    ) -> None:
        """Raises a UserError that names the first tensor that was not finite since the last call.

        Args:
          step: the last step.
          record: metrics of this step.
          state: after this step.
          saved: step of the latest checkpoint, None if there is none.
        """
        found = [int(position) for position in jax.device_get(self._nonfinite)]
        self._nonfinite.clear()
        for number, position in enumerate(found, start=step - len(found) + 1):
            if position >= 0:
                name = list(health.watched(record, state.params, state.variables))[position]
                raise self._diverged(number, name, saved)

    def _diverged(self, step: int, name: str, saved: int | None) -> UserError:
        """The error that a tensor is not finite; see `_check_finite`."""
        rule = f"training diverged at step {step}: {name} is not finite; "
        if saved is None:
            rule += "lower it and start again (there is no checkpoint)"
        else:
            rule += f"resume from checkpoint {saved}, which is kept, with a lower one and "
            rule += "--config.train.resume_with=train.learning_rate"
        return UserError("config.train.learning_rate", self._settings.optimizer.learning_rate, rule)

    def _save(
        self,
        checkpoints: Checkpoints,
        state: TrainState,
        record: dict[str, float],
        validated: bool,
    ) -> None:
        whole = to_host(state, self._module.class_shards)
        checkpoints.save(whole, record, validated)

    def _save_between(
        self,
        checkpoints: Checkpoints,
        state: TrainState,
        metrics: dict[str, Any],
        record: dict[str, float],
    ) -> None:
        """Saves a state after a step that did not log; raises as `_log` does.

        Args:
          checkpoints: of the run.
          state: to save.
          metrics: of the last step, of which only the losses are known.
          record: the last one, whose attention quantiles are the latest.
        """
        step, saved = int(state.step), checkpoints.latest()
        self._check_finite(step, metrics, state, saved)
        self._check_skipped()
        whole = to_host(state, self._module.class_shards)
        for name, leaf in health.watched({}, {}, whole.variables).items():
            if not np.isfinite(leaf).all():
                raise self._diverged(step, name, saved)
        checkpoints.save(whole, {n: record[n] for n in ATTENTION_QUANTILES if n in record})

    def _check_skipped(self) -> None:
        skipped = self._skip_log.read()
        if len(skipped) > self._images.max_skipped:
            skips.report(self._skip_log.path.parent, skipped, self._images.max_skipped)

    def _evaluate(
        self, state: TrainState, step: int, stop: StopRequest, record: dict[str, float]
    ) -> bool:
        """Adds the means over the validation images to a record; False if a stop came first."""
        draw = functools.partial(self._writer.draw_attention, step)
        means = self._validate(state, stop, draw)
        self._clock = (time.monotonic(), step)
        self._input_wait.restart()
        if means:
            means |= self._diagnosis.examine(step, means)
            record |= self._writer.write(step, means)
        return means is not None


def _device_memory() -> dict[str, float]:
    """Peak memory of the first device, if the backend reports it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"device_memory_bytes": float(peak)}


def choose_validation(source: ImageSource, count: int, seed: int) -> ImageSource:
    """A random choice of images in their order, the same for the same arguments.

    Args:
      source: labelled images.
      count: of images to choose; 0 for all.
      seed: of the choice.
    """
    if not 0 < count < len(source):
        return source
    chosen = np.random.default_rng(seed).choice(len(source), count, replace=False)
    _LOG.info("validation on %d of %d images", count, len(source))
    return SelectedSource(source, np.sort(chosen))


class Validation:
    """Computes the means over all images of a source.

    Args:
      source: labelled images; may be empty.
      settings: how images are read.
      batch_size: images in a batch of all processes.
      eval_step: of `step.parallel_eval_step`.
      skip_log: list of bad images.
    """

    def __init__(
        self,
        source: ImageSource,
        settings: pipeline.InputSettings,
        batch_size: int,
        eval_step: Callable[..., tuple[dict[str, jax.Array], jax.Array | None]],
        skip_log: skips.SkipLog,
    ) -> None:
        self._source, self._settings, self._batch_size = source, settings, batch_size
        self._eval_step, self._skip_log = eval_step, skip_log

    def __call__(
        self,
        state: TrainState,
        stop: StopRequest,
        draw: Callable[[np.ndarray, jax.Array | None], None],
    ) -> dict[str, float] | None:
        """Means by name, with the prefix `validation_`; empty without images.

        Args:
          state: on all devices.
          stop: may end the validation between two batches.
          draw: takes the first images, uint8 [B, H, W, 3], and their attention scores.

        Returns:
          The means; None if a request to stop came first.
        """
        batches = pipeline.validation_batches(
            self._source, self._settings, self._batch_size, self._skip_log, distributed.shard()
        )
        sums: list[dict[str, jax.Array]] = []
        for batch in stop.items(batches):
            found, scores = self._eval_step(state, split_over_devices(batch))
            jax.block_until_ready(sums[-1:])  # a request to stop must not wait for many batches
            if not sums:
                draw(batch["image"], scores)
            sums.append(found)
        if len(sums) < math.ceil(len(self._source) / self._batch_size):
            return None
        return _means(jax.device_get(sums))


def _means(sums: list[dict[str, Any]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for batch in sums:
        for name, value in batch.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    count = totals.pop("count", 0.0)
    return {f"{VALIDATION}{name}": total / count for name, total in totals.items()} if count else {}
