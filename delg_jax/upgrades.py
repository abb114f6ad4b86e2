"""What configurations stored by earlier versions do not say yet."""

from collections.abc import Mapping
from typing import Any

# Field that was added after artefacts of this format had been written -> the value with which the
# program does what it did before there was the field
ADDED = {
    "extract.scale_pooling": "mean",
    "extract.gem_power": 0.0,
    "extract.regional": 0.0,
    "extract.relup": 0.0,
    "eval.depth": 0,
    "eval.recognition_top": 3,
    "eval.pairs": 0,
    "eval.negative_pairs": 1000,
}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A flattened configuration of an earlier version as this version would have stored it."""
    return {**ADDED, **stored}
