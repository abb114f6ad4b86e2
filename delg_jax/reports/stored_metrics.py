"""The metrics that runs leave, checked before a report is made of them."""

import pathlib
from collections.abc import Iterable
from typing import Any

from delg_jax import json_files
from delg_jax.json_files import count, each, every, fields, finite, known, number, require, text

_SUBJECT = "metrics"


def read_evaluation(path: pathlib.Path) -> dict[str, Any] | None:
    """What `evaluation.evaluate` returned.

    Args:
      path: of `metrics.json`.

    Returns:
      Its content, which may lack what versions before did not write; None if there is no file.

    Raises:
      UserError: if it is damaged.
    """
    return json_files.read(path, _SUBJECT, _evaluation)


def read_training(path: pathlib.Path) -> dict[str, float] | None:
    """The last metrics of a training run; as `read_evaluation`, for `train_metrics.json`."""
    return json_files.read(path, _SUBJECT, each(number))


def _bounds(value: Any, where: str) -> None:
    every(known)(value, where)
    require(len(value) == 2, where, "must have two bounds")


_GAIN = {"over": text, "difference": known, "low": known, "high": known, "p_value": known}
_PARTS = fields(
    {
        "methods": each(each(each(known))),
        "seconds": each(finite),
        "images": count,
        "queries": count,
    },
    {
        "average_precisions": each(each(every(known))),
        "intervals": each(each(_bounds)),
        "comparisons": each(each(fields(_GAIN))),
        "megabytes": each(known),
        "skipped": each(each(count)),
    },
)


def _evaluation(content: Any, where: str) -> None:
    """Each part by itself, and that parts speak of the methods and protocols that there are."""
    _PARTS(content, where)
    methods = content["methods"]
    shapes = [[(name, list(found)) for name, found in table.items()] for table in methods.values()]
    for method, shape in zip(methods, shapes, strict=True):
        same = shape == shapes[0] and all(metrics for _, metrics in shape)
        require(same, f"methods.{method}", "must have the metrics of the first method")
    _require_all(methods, content["seconds"], "seconds")
    for method, by_protocol in content.get("intervals", {}).items():
        _require_all([method], methods, "methods")
        _require_all(by_protocol, methods[method], f"methods.{method}")


def _require_all(names: Iterable[str], there: Iterable[str], where: str) -> None:
    for name in names:
        require(name in there, f"{where}.{name}", "must be there")
