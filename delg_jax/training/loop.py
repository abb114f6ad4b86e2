"""The training loop: steps, metrics, validation and checkpoints, until the end or SIGTERM."""

import contextlib
import json
import logging
import math
import pathlib
import time
from typing import Any

import grain
import jax
import ml_collections
import optax

from delg_jax import distributed
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
from delg_jax.training.placement import to_host
from delg_jax.training.step import (
    loss_weights,
    parallel_eval_step,
    parallel_train_step,
    split_over_devices,
)

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
        self._validation, self._skip_log, self._folder = validation, skip_log, folder
        self._module, self._tx = module, tx
        self._learning_rate = optimizer.learning_rate(train)
        learns_attention = (
            module.local_head and module.attention == "learned" and train.heads != "global"
        )
        self._diagnosis = health.Diagnosis(train, learns_attention, validation.labels)
        self._nonfinite: list[jax.Array] = []  # of each step since the last record
        if not len(validation):
            text = "no validation images: only losses of training are recorded"
            best = train.best_metric.startswith("validation_")
            _LOG.warning(text + (", and no checkpoint is kept as the best" if best else ""))

    def run(
        self, state: TrainState, batches: grain.DatasetIterator, checkpoints: Checkpoints
    ) -> dict[str, float]:
        """Takes all remaining steps and returns the last record of metrics.

        Args:
          state: to start from, on all devices.
          batches: of this process, at the position of `state`.
          checkpoints: of the run.

        Raises:
          SystemExit: with status 0, after SIGTERM and the checkpoint that follows it.
          UserError: if a tensor is not finite, or too many images are bad.
        """
        train, first = self._train, int(state.step)
        record: dict[str, float] = {}
        self._writer = MetricsWriter(self._folder, first, train.tensorboard)
        self._clock = (time.monotonic(), first)
        self._compile(state)
        with (
            contextlib.closing(self._writer),
            StopRequest() as stop,
            Progress("train", train.steps, "step", done=first) as progress,
        ):
            for step in range(first + 1, train.steps + 1):
                try:
                    batch = next(batches)
                except Exception:
                    self._check_skipped()  # its error is clearer if no image is good
                    raise
                last, stopped = step == train.steps, stop.arrived(step)
                saves = last or stopped or step % train.checkpoint_every == 0
                # Also before each checkpoint, because this detects divergence
                logs = saves or step % train.log_every == 0
                state, metrics = self._train_step(state, split_over_devices(batch), logs)
                self._nonfinite.append(metrics.pop("nonfinite"))
                if logs:
                    record = self._log(step, metrics, state, checkpoints.latest())
                if last or step % train.eval_every == 0:
                    means = self._evaluate(state, step)
                    if means:
                        means |= self._diagnosis.examine(step, means)
                        record |= self._writer.write(step, means)
                    self._clock = (time.monotonic(), step)
                if saves:
                    input_state = json.dumps(_to_json(batches.get_state()))
                    whole = to_host(state, self._module.class_shards)
                    checkpoints.save(whole, input_state, record)
                if stopped and not last:
                    _LOG.info("stopped at step %d; the same command resumes there", step)
                    raise SystemExit(0)
                progress.advance(note=f"loss {record.get('loss', math.nan):.3f}")
        return record or self._writer.read(train.steps)

    def _compile(self, state: TrainState) -> None:
        """Prepares both steps for a state of this structure."""
        train, shards, weights = self._train, self._module.class_shards, loss_weights(self._train)
        self._train_step = parallel_train_step(
            state,
            self._module,
            self._tx,
            weights,
            optimizer.penalty(train, shards),
            train.accumulation_steps,
        )
        self._eval_step = parallel_eval_step(state, self._module, weights)

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
                kept = "there is no checkpoint" if saved is None else f"checkpoint {saved} is kept"
                rule = (
                    f"training diverged at step {number}: {name} is not finite; lower it ({kept})"
                )
                raise UserError("config.train.learning_rate", self._train.learning_rate, rule)

    def _check_skipped(self) -> None:
        skipped = self._skip_log.read()
        if len(skipped) > self._data.max_skipped:
            skips.report(self._skip_log.path.parent, skipped, self._data.max_skipped)

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        """Means over the validation images, with the prefix `validation_`; empty without images."""
        totals: dict[str, float] = {}
        batches = pipeline.validation_batches(
            self._validation,
            self._data,
            self._train.batch_size // self._train.accumulation_steps,
            self._skip_log,
            distributed.shard(),
        )
        for number, batch in enumerate(batches):
            sums, scores = self._eval_step(state, split_over_devices(batch))
            if number == 0:
                self._writer.draw_attention(step, batch["image"], scores)
            for name, value in jax.device_get(sums).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        count = totals.pop("count", 0.0)
        if not count:
            return {}
        means = {f"validation_{name}": total / count for name, total in totals.items()}
        best = self._train.best_metric
        if best.startswith("validation_") and best not in means:
            rule = f"must be one of {', '.join(sorted(means))}, or another metric, or empty"
            raise UserError("config.train.best_metric", best, rule)
        return means


def _device_memory() -> dict[str, float]:
    """Peak memory of the first device, if the backend reports it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"device_memory_bytes": float(peak)}


def _to_json(value: Any) -> Any:
    """The state of a Grain iterator as JSON values."""
    if isinstance(value, dict):
        return {name: _to_json(child) for name, child in value.items()}
    return value.decode() if isinstance(value, bytes) else value
