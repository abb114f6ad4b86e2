"""One run: steps, records, validation and checkpoints, until the end or a request to stop."""

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
from delg_jax.training import health
from delg_jax.training import optimizer as train_state
from delg_jax.training import step as train_step
from delg_jax.training.checkpoints import Checkpoints
from delg_jax.training.interruption import StopRequest
from delg_jax.training.metrics import MetricsWriter

_LOG = logging.getLogger(__name__)


class Run:
    """What stays the same from step to step.

    Args:
      config: the whole tree.
      module: the network.
      tx: the optimiser.
      validation: labelled images; without any, nothing is measured on them.
      folder: gets the records.
      skip_log: where bad images are listed.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        module: Delg,
        tx: optax.GradientTransformation,
        validation: ImageSource,
        folder: pathlib.Path,
        skip_log: skips.SkipLog,
    ) -> None:
        train = config.train
        weights = train_step.loss_weights(train)
        self._config, self._validation, self._skip_log = config, validation, skip_log
        self._folder = folder
        penalty = train_state.penalty(train)
        self._train_step = train_step.parallel_train_step(
            module, tx, weights, penalty, train.accumulation_steps
        )
        self._eval_step = train_step.parallel_eval_step(module, weights)
        self._learning_rate = train_state.learning_rate(train)
        learns_attention = (
            module.local_head and module.attention == "learned" and train.heads != "global"
        )
        self._diagnosis = health.Diagnosis(train, learns_attention, validation.labels)
        self._nonfinite: list[jax.Array] = []  # of each step since the last record
        if not len(validation):
            text = "no validation images: only losses of training are recorded"
            best = train.best_metric.startswith("validation_")
            _LOG.warning(text + (", and no checkpoint is kept as the best" if best else ""))

    def train(
        self,
        state: train_state.TrainState,
        batches: grain.DatasetIterator,
        checkpoints: Checkpoints,
    ) -> dict[str, float]:
        """Takes all steps that are left and returns the last record.

        Args:
          state: to begin with, on all devices.
          batches: of this process, where `state` stands.
          checkpoints: of the run.

        Raises:
          SystemExit: with status 0, after a SIGTERM and the checkpoint that followed it.
          UserError: if a tensor is not finite, or too many images are bad.
        """
        train = self._config.train
        first, record = int(state.step), {}
        self._writer = MetricsWriter(self._folder, first, train.tensorboard)
        self._clock = (time.monotonic(), first)
        with (
            contextlib.closing(self._writer),
            StopRequest() as stop,
            Progress("train", train.steps, "step", done=first) as progress,
        ):
            for step in range(first + 1, train.steps + 1):
                batch = train_step.split_over_devices(self._next(batches))
                state, metrics = self._train_step(state, batch)
                self._nonfinite.append(metrics.pop("nonfinite"))
                last, stopped = step == train.steps, stop.arrived(step)
                saves = last or stopped or step % train.checkpoint_every == 0
                # Also before each checkpoint, because it finds a network that diverged
                if saves or step % train.log_every == 0:
                    record = self._log(step, metrics, state, checkpoints.latest())
                if last or step % train.eval_every == 0:
                    measured = self.evaluate(state, step)
                    record |= self._write(step, measured) if measured else {}
                    self._clock = (time.monotonic(), step)
                if saves:
                    input_state = json.dumps(_plain(batches.get_state()))
                    checkpoints.save(state, input_state, record)
                if stopped and not last:
                    _LOG.info("stopped at step %d; the same command goes on from there", step)
                    raise SystemExit(0)
                progress.advance(note=f"loss {record.get('loss', math.nan):.3f}")
        return record or self._writer.read(train.steps)

    def _next(self, batches: grain.DatasetIterator) -> pipeline.Batch:
        try:
            return next(batches)
        except Exception:
            self._check_skipped()  # says it better if there is no good image
            raise

    def _log(
        self, step: int, metrics: dict[str, Any], state: train_state.TrainState, saved: int | None
    ) -> dict[str, float]:
        """Writes the metrics of a step, and ends a run that diverged."""
        metrics = jax.device_get(metrics)  # waits for the step
        (since, done), now = self._clock, time.monotonic()
        self._clock = (now, step)
        seconds = (now - since) / (step - done)
        speed = {
            "step_seconds": seconds,
            "images_per_second": self._config.train.batch_size / seconds,
            **_device_memory(),
        }
        rates = {"learning_rate": self._learning_rate(step - 1)}
        record = self._write(step, {**metrics, **rates, **speed})
        self._refuse_nonfinite(step, record, state, saved)
        self._check_skipped()
        return record

    def _write(self, step: int, values: dict[str, Any]) -> dict[str, float]:
        return self._writer.write(step, values | self._diagnosis.examine(step, values))

    def _refuse_nonfinite(
        self,
        step: int,
        record: dict[str, float],
        state: train_state.TrainState,
        saved: int | None,
    ) -> None:
        found = [int(position) for position in jax.device_get(self._nonfinite)]
        self._nonfinite.clear()
        for number, position in enumerate(found, start=step - len(found) + 1):
            if position >= 0:
                name = list(health.watched(record, state.params, state.variables))[position]
                kept = "there is no checkpoint" if saved is None else f"checkpoint {saved} is kept"
                rule = (
                    f"training diverged at step {number}: {name} is not finite; lower it ({kept})"
                )
                rate = self._config.train.learning_rate
                raise UserError("config.train.learning_rate", rate, rule)

    def _check_skipped(self) -> None:
        skipped = self._skip_log.read()
        if len(skipped) > self._config.data.max_skipped:
            skips.report(self._skip_log.path.parent, skipped, self._config.data.max_skipped)

    def evaluate(self, state: train_state.TrainState, step: int) -> dict[str, float]:
        """Means over the validation images, names with the prefix `validation_`.

        None at all if there is no image, or no good one: a mean of nothing is no loss of 0.
        """
        totals: dict[str, float] = {}
        train = self._config.train
        batches = pipeline.validation_batches(
            self._validation,
            self._config.data,
            train.batch_size // train.accumulation_steps,
            self._skip_log,
            distributed.shard(),
        )
        for number, batch in enumerate(batches):
            sums, scores = self._eval_step(state, train_step.split_over_devices(batch))
            if number == 0:
                self._writer.draw(step, batch["image"], scores)
            for name, value in jax.device_get(sums).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        count = totals.pop("count", 0.0)
        if not count:
            return {}
        means = {f"validation_{name}": total / count for name, total in totals.items()}
        self._check_best_metric(means)
        return means

    def _check_best_metric(self, means: dict[str, float]) -> None:
        best = self._config.train.best_metric
        if best.startswith("validation_") and best not in means:
            rule = f"must be one of {', '.join(sorted(means))}, or another metric, or empty"
            raise UserError("config.train.best_metric", best, rule)


def _device_memory() -> dict[str, float]:
    """Peak of the first device, where the backend tells it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    found = stats.get("peak_bytes_in_use")
    return {} if found is None else {"device_memory_bytes": float(found)}


def _plain(value: Any) -> Any:
    """A Grain iterator's state as JSON values."""
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in value.items()}
    return value.decode() if isinstance(value, bytes) else value
