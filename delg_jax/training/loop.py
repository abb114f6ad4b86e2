"""The training loop: steps, metrics, validation and checkpoints, until the end or a stop."""

import contextlib
import functools
import logging
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import optax

from delg_jax.data import pipeline, skips
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError
from delg_jax.models.delg import Delg
from delg_jax.progress import Progress
from delg_jax.training import health, optimizer
from delg_jax.training.checkpoints import Checkpoints
from delg_jax.training.interruption import StopRequest
from delg_jax.training.metrics import MetricsWriter
from delg_jax.training.optimizer import TrainState
from delg_jax.training.step import (
    loss_weights,
    parallel_eval_step,
    parallel_train_step,
    split_over_devices,
)
from delg_jax.training.validation import Validation, choose

_LOG = logging.getLogger(__name__)


class TrainingLoop:
    """Takes the steps of a run; records metrics, validates and saves on the way.

    Args:
      train: the `config.train` tree.
      data: the `config.data` tree.
      module: the network.
      tx: the optimiser.
      validation: labelled images; may be empty.
      folder: gets the metrics.
      skip_log: list of bad images.
    """

    def __init__(
        self,
        train: ml_collections.ConfigDict,
        data: ml_collections.ConfigDict,
        module: Delg,
        tx: optax.GradientTransformation,
        validation: ImageSource,
        folder: pathlib.Path,
        skip_log: skips.SkipLog,
    ) -> None:
        self._train, self._data = train, data
        self._skip_log, self._folder = skip_log, folder
        weights, penalty = loss_weights(train), optimizer.penalty(train)
        self._train_step = parallel_train_step(
            module, tx, weights, penalty, train.accumulation_steps
        )
        chosen = choose(validation, train.eval_images, data.split_seed)
        batch_size = train.batch_size // train.accumulation_steps
        eval_step = parallel_eval_step(module, weights, penalty)
        self._validate = Validation(chosen, data, batch_size, eval_step, skip_log)
        self._learning_rate = optimizer.learning_rate(train)
        learns_attention = (
            module.local_head and module.attention == "learned" and train.heads != "global"
        )
        self._diagnosis = health.Diagnosis(train, learns_attention, chosen.labels)
        self._nonfinite: list[jax.Array] = []  # of each step since the last record
        if not len(validation):
            text = "no validation images: only losses of training are recorded"
            best = ", and no checkpoint is kept as the best" if train.best_metric else ""
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
        train, first = self._train, int(state.step)
        step = logged = first
        record: dict[str, float] = {}
        metrics: dict[str, Any] = {}
        self._writer = MetricsWriter(self._folder, first, train.tensorboard)
        self._clock = (time.monotonic(), first)
        with (
            contextlib.closing(self._writer),
            Progress("train", train.steps, "step", done=first) as progress,
        ):
            if not validated:
                record = self._writer.read(step)
                validated = self._evaluate(state, step, stop, record)
                checkpoints.save(state, record, validated)
            steps = range(first + 1, train.steps + 1)
            for step, batch in zip(steps, stop.items(self._good(batches)), strict=False):
                before = metrics
                state, metrics = self._train_step(state, split_over_devices(batch))
                jax.block_until_ready(before)  # a request to stop must not wait for many steps
                self._nonfinite.append(metrics.pop("nonfinite"))
                last = step == train.steps
                validates = last or step % train.eval_every == 0
                saves = last or step % train.checkpoint_every == 0
                # Also before each checkpoint, because this detects divergence
                if saves or validates or step % train.log_every == 0:
                    record, logged = self._log(step, metrics, state, checkpoints.latest()), step
                if validates:
                    validated = self._evaluate(state, step, stop, record)
                if saves or not validated or (validates and checkpoints.is_best(record)):
                    checkpoints.save(state, record, validated)
                progress.advance(note=f"loss {record.get('loss', math.nan):.3f}")
            if step < train.steps or not validated:
                if logged < step:
                    record = self._log(step, metrics, state, checkpoints.latest())
                if step > first:
                    checkpoints.save(state, record, validated)
                _LOG.info("stopped at step %d", step)
                raise stop.interruption()
        return record or self._writer.read(train.steps)

    def _good(self, batches: Iterator[pipeline.Batch]) -> Iterator[pipeline.Batch]:
        """Yields the batches; if there are none, the error says which images are bad."""
        while True:
            try:
                batch = next(batches)
            except Exception:
                self._check_skipped()
                raise
            yield batch

    def _log(
        self, step: int, metrics: dict[str, Any], state: TrainState, saved: int | None
    ) -> dict[str, float]:
        """Writes the metrics of a step; raises if the run diverged or skipped too many images."""
        values = jax.device_get(metrics)  # waits for the step
        (since, done), now = self._clock, time.monotonic()
        self._clock = (now, step)
        seconds = (now - since) / (step - done)
        values |= {
            "learning_rate": self._learning_rate(step - 1),
            "step_seconds": seconds,
            "images_per_second": self._train.batch_size / seconds,
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
                rule = f"training diverged at step {number}: {name} is not finite; lower it and "
                rule += "start again (there is no checkpoint)"
                if saved is not None:
                    rule = f"training diverged at step {number}: {name} is not finite; resume from "
                    rule += f"checkpoint {saved}, which is kept, with a lower one and "
                    rule += "--config.train.resume_with=train.learning_rate"
                raise UserError("config.train.learning_rate", self._train.learning_rate, rule)

    def _check_skipped(self) -> None:
        skipped = self._skip_log.read()
        if len(skipped) > self._data.max_skipped:
            skips.report(self._skip_log.path.parent, skipped, self._data.max_skipped)

    def _evaluate(
        self, state: TrainState, step: int, stop: StopRequest, record: dict[str, float]
    ) -> bool:
        """Adds the means over the validation images to a record; False if a stop came first."""
        draw = functools.partial(self._writer.draw_attention, step)
        means = self._validate(state, stop, draw)
        self._clock = (time.monotonic(), step)
        if means:
            means |= self._diagnosis.examine(step, means)
            record |= self._writer.write(step, means)
        return means is not None


def _device_memory() -> dict[str, float]:
    """Peak memory of the first device, if the backend reports it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"device_memory_bytes": float(peak)}
