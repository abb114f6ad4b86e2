"""What goes wrong in a run: the first tensor that is not finite, and signs of not learning."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

_LOG = logging.getLogger(__name__)

_DEAD_SCORE = 1e-4  # attention whose largest score is below selects nothing
_FLAT_SPREAD = 1e-3  # of scores, relative to the largest, below which all positions are alike
_SCALE_RANGE = 10.0  # factor by which gamma may leave its initial value
_DEVIATIONS = 3.0  # standard deviations above chance that count as having learned


def watched(metrics: Mapping[str, Any], gradients: Any, variables: Any) -> dict[str, Any]:
    """Everything that must stay finite, by name, in the order in which a step computes it.

    Args:
      metrics: of the step; the losses among them count, the total last.
      gradients: by parameter.
      variables: parameters and statistics after the step.
    """
    losses = sorted((n for n in metrics if n.endswith("loss")), key=lambda n: (n == "loss", n))
    named = {name: metrics[name] for name in losses}
    for kind, tree in (("gradient", gradients), ("variable", variables)):
        flat = traverse_util.flatten_dict(tree, sep="/")
        named |= {f"{kind} {path}": leaf for path, leaf in sorted(flat.items())}
    return named


def first_nonfinite(tensors: Mapping[str, jax.Array]) -> jax.Array:
    """Position of the first tensor with a value that is not finite, int32; -1 if there is none."""
    bad = jnp.stack([~jnp.all(jnp.isfinite(tensor)) for tensor in tensors.values()])
    return jnp.where(jnp.any(bad), jnp.argmax(bad), -1).astype(jnp.int32)


class Diagnosis:
    """Looks for a run that does not learn; each sign is logged once.

    Args:
      train: the `config.train` tree.
      learns_attention: whether there are attention weights to be learned.
      labels: int [N], of the validation images.
    """

    def __init__(
        self, train: ml_collections.ConfigDict, learns_attention: bool, labels: np.ndarray
    ) -> None:
        self._train, self._learns_attention = train, learns_attention
        self._chance = chance_level(labels)
        self._said: set[str] = set()

    def examine(self, step: int, record: Mapping[str, float]) -> dict[str, float]:
        """Signs in a record of metrics, as fields `warning_...` that are 1."""
        signs = {}
        if step >= self._train.chance_after:
            signs["warning_at_chance"] = self._at_chance(record)
        if self._learns_attention and "attention_max" in record:
            low, high = record["attention_min"], record["attention_max"]
            if high < _DEAD_SCORE or high - low < _FLAT_SPREAD * high:
                text = f"attention is dead: all scores lie in [{low:.3g}, {high:.3g}]"
                signs["warning_dead_attention"] = text
        scale, initial = record.get("scale"), self._train.arcface_scale
        if scale is not None and not initial / _SCALE_RANGE < scale < initial * _SCALE_RANGE:
            text = f"gamma of ArcFace went from {initial:.3g} to {scale:.3g}"
            signs["warning_scale"] = f"{text}; lower config.train.learning_rate, or fix gamma"
        signs = {name: text for name, text in signs.items() if text}
        for name in sorted(set(signs) - self._said):
            _LOG.warning("step %d: %s", step, signs[name])
        self._said |= set(signs)
        return dict.fromkeys(signs, 1.0)

    def _at_chance(self, record: Mapping[str, float]) -> str:
        heads = {"joint": ("global", "attention"), "global": ("global",), "local": ("attention",)}
        low = {
            head: record[f"validation_{head}_accuracy"]
            for head in heads[self._train.heads]
            if record.get(f"validation_{head}_accuracy", math.inf) <= self._chance
        }
        values = ", ".join(f"{head} {value:.4g}" for head, value in low.items())
        rule = "try another config.train.learning_rate or pretrained weights"
        return f"accuracy on validation images is at chance ({values}); {rule}" if low else ""


def chance_level(labels: np.ndarray) -> float:
    """The accuracy that always naming the commonest of `labels` would hardly exceed."""
    if not len(labels):
        return -1.0
    share = np.bincount(labels).max() / len(labels)
    return float(share + _DEVIATIONS * math.sqrt(share * (1 - share) / len(labels)))
