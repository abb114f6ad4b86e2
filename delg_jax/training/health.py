"""How a run is doing: the time that devices wait, tensors that are not finite, no learning."""

import concurrent.futures
import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

_LOG = logging.getLogger(__name__)

_DEAD_SCORE = 1e-4  # attention is dead if its largest score is lower
_FLAT_SPREAD = 1e-3  # attention is dead if its scores spread less, relative to the largest
_SCALE_RANGE = 10.0  # factor by which gamma may differ from its initial value
_DEVIATIONS = 3.0  # standard deviations above chance from which a network has learned
T = TypeVar("T")
_STARVING = 0.2  # share of waiting that is reported


def watched(metrics: Mapping[str, Any], gradients: Any, variables: Any) -> dict[str, Any]:
    """All tensors that must stay finite, by name, in the order in which a step computes them.

    Args:
      metrics: of the step; only losses are watched, the total last.
      gradients: by parameter.
      variables: parameters and statistics after the step.
    """
    losses = sorted((n for n in metrics if n.endswith("loss")), key=lambda n: (n == "loss", n))
    named = {name: metrics[name] for name in losses}
    for kind, tree in (("gradient", gradients), ("variable", variables)):
        flat = traverse_util.flatten_dict(tree, sep="/")
        named |= {f"{kind} {path}": leaf for path, leaf in sorted(flat.items())}
    return named


def first_nonfinite(tensors: Mapping[str, jax.Array], axis: str | None = None) -> jax.Array:
    """Position of the first tensor with a value that is not finite, int32; -1 if all are finite.

    Args:
      tensors: by name.
      axis: name of the device axis, over which shards of the same tensor may differ; None outside
        of a `pmap`.
    """
    bad = jnp.stack([~jnp.all(jnp.isfinite(tensor)) for tensor in tensors.values()])
    if axis is not None:
        bad = jax.lax.pmax(bad.astype(jnp.int32), axis) > 0
    return jnp.where(jnp.any(bad), jnp.argmax(bad), -1).astype(jnp.int32)


class Diagnosis:
    """Warns of a run that does not learn; each warning is logged once.

    Args:
      heads: joint | global | local, those that learn.
      learns_attention: whether the attention has weights that learn.
      initial_scale: gamma of ArcFace before the first step.
      labels: int [N], of the validation images.
      chance_after: steps after which accuracy at chance is reported.
    """

    def __init__(
        self,
        heads: str,
        learns_attention: bool,
        initial_scale: float,
        labels: np.ndarray,
        chance_after: int,
    ) -> None:
        self._heads, self._learns_attention = heads, learns_attention
        self._initial_scale = initial_scale
        self._chance, self._chance_after = chance_level(labels), chance_after
        self._logged: set[str] = set()

    def examine(self, step: int, record: Mapping[str, float]) -> dict[str, float]:
        """Logs warnings about a record of metrics and returns them as fields `warning_...` = 1."""
        warnings: dict[str, str] = {}
        if step >= self._chance_after:
            warnings["warning_at_chance"] = self._at_chance(record)
        if self._learns_attention and "attention_max" in record:
            low, high = record["attention_min"], record["attention_max"]
            if high < _DEAD_SCORE or high - low < _FLAT_SPREAD * high:
                text = f"attention is dead: all scores lie in [{low:.3g}, {high:.3g}]"
                warnings["warning_dead_attention"] = text
        scale, initial = record.get("scale"), self._initial_scale
        if scale is not None and not initial / _SCALE_RANGE < scale < initial * _SCALE_RANGE:
            text = f"the scale of ArcFace went from {initial:.3g} to {scale:.3g}"
            warnings["warning_scale"] = (
                f"{text}; lower config.train.learning_rate, or fix the scale"
            )
        warnings = {name: text for name, text in warnings.items() if text}
        for name in sorted(set(warnings) - self._logged):
            _LOG.warning("step %d: %s", step, warnings[name])
        self._logged |= set(warnings)
        return dict.fromkeys(warnings, 1.0)

    def _at_chance(self, record: Mapping[str, float]) -> str:
        heads = {"joint": ("global", "attention"), "global": ("global",), "local": ("attention",)}
        low = {
            head: record[f"validation_{head}_accuracy"]
            for head in heads[self._heads]
            if record.get(f"validation_{head}_accuracy", math.inf) <= self._chance
        }
        values = ", ".join(f"{head} {value:.4g}" for head, value in low.items())
        rule = "try another config.train.learning_rate or pretrained weights"
        return f"accuracy on validation images is at chance ({values}); {rule}" if low else ""


def chance_level(labels: np.ndarray) -> float:
    """Majority-class accuracy + 3 sigma; -1 without labels."""
    if not len(labels):
        return -1.0
    share = np.bincount(labels).max() / len(labels)
    return float(share + _DEVIATIONS * math.sqrt(share * (1 - share) / len(labels)))


class InputWait:
    """Measures for how long the devices have nothing to do because no batch is there.

    Time in which the program waits for a batch does not count while the devices still compute the
    step before. Use it in a `with` block.
    """

    def __init__(self) -> None:
        # A thread sees when a step ends while the main thread waits for the next batch
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "step-end")
        self._step: concurrent.futures.Future[float] | None = None
        self._waited = 0.0
        self._since = time.monotonic()
        self._reported = False

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the last step."""
        self._pool.shutdown()

    def batches(self, iterator: Iterator[T]) -> Iterator[T]:
        """Yields the batches, and adds the time that the devices wait for each."""
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            if self._step is not None and self._step.done():
                self._waited += time.monotonic() - max(asked, self._step.result())
            yield batch

    def stepped(self, outputs: Any) -> None:
        """Takes the outputs of the step that was just started."""
        self._step = self._pool.submit(_end_of, outputs)

    def restart(self) -> None:
        """Starts to measure again, for example after a validation."""
        self._step, self._waited, self._since = None, 0.0, time.monotonic()

    def share(self) -> float:
        """The share of waiting since the last call or restart, 0 to 1.

        The first share above 0.2 is logged with what to do about it.
        """
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        if share > _STARVING and not self._reported:
            self._reported = True
            _LOG.warning(
                "the devices wait for images %.0f %% of the time; use more config.data.workers or "
                "cores, smaller files, or config.train.cache_features with a frozen backbone",
                100 * share,
            )
        return share


def _end_of(outputs: Any) -> float:
    jax.block_until_ready(outputs)
    return time.monotonic()
