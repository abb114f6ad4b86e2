"""What a query costs by stage, one query at a time, and the precision of what it finds."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from delg_jax import configuration
from delg_jax.cli import stored_config
from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.errors import UserError
from delg_jax.evaluation import revisited
from delg_jax.evaluation.cost import Cost, measured


class Stages:
    """What queries cost, by stage.

    Attributes:
      costs: of each query, by stage.
    """

    def __init__(self) -> None:
        self.costs: dict[str, list[Cost]] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures a block of code."""
        with measured() as cost:
            yield
        self.costs.setdefault(name, []).append(cost)

    def milliseconds(self) -> dict[str, float]:
        """The mean of each stage, without the first query, which compiles."""
        return {
            name: 1000 * float(np.mean([cost.seconds for cost in costs[1:] or costs]))
            for name, costs in self.costs.items()
        }

    def megabytes(self) -> dict[str, float]:
        """The most by which a stage let the process grow, without the first query."""
        return {
            name: max(cost.megabytes or 0.0 for cost in costs[1:] or costs)
            for name, costs in self.costs.items()
        }


def precision(
    rankings: Sequence[Mapping[str, np.ndarray]], truth: Sequence[dict]
) -> dict[str, float]:
    """Mean average precision in percent, by protocol."""
    by_protocol = {name: np.concatenate([one[name] for one in rankings]) for name in rankings[0]}
    metrics = revisited.by_protocol(by_protocol, truth, (1,)).metrics
    return {name: metrics[name]["map"] for name in PROTOCOLS}


def medium_hard(found: Mapping[str, float] | None) -> str:
    """A cell of a table; empty for what was not measured."""
    return "" if found is None else f"{found['medium']:.1f} / {found['hard']:.1f}"


def chosen_fields(root: pathlib.Path, texts: Sequence[str]) -> dict[str, Any]:
    """The fields that `--field=PATH=VALUE` of the search and the re-ranking set.

    Args:
      root: a workdir with features, whose configuration gives the types.
      texts: values of the flag.

    Returns:
      Values by path.

    Raises:
      UserError: for an unknown field or a value of another type.
    """
    known, fields = configuration.flatten(stored_config.read(root)), dict[str, Any]()
    for text in texts:
        path, _, value = text.partition("=")
        if path not in known or not path.startswith(("search.", "rerank.")):
            raise UserError("--field", text, "must be a field of search or rerank and its value")
        kind = type(known[path])
        try:
            fields[path] = value == "True" if kind is bool else kind(value)
        except ValueError:
            raise UserError("--field", text, f"must have a value of type {kind.__name__}") from None
    return fields


def tag(*parts: Any) -> str:
    """A digest of values that JSON has."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
