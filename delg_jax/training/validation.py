"""Validation: means of losses and accuracies over a fixed choice of images."""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from delg_jax import distributed
from delg_jax.data import pipeline, skips
from delg_jax.data.sources import ImageSource, SelectedSource
from delg_jax.training.interruption import StopRequest
from delg_jax.training.optimizer import TrainState
from delg_jax.training.step import split_over_devices

_LOG = logging.getLogger(__name__)

PREFIX = "validation_"


def choose(source: ImageSource, count: int, seed: int) -> ImageSource:
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
    return {f"{PREFIX}{name}": total / count for name, total in totals.items()} if count else {}
