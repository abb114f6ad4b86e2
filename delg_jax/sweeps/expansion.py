"""Expands a sweep into its runs: every combination of values, checked against a configuration."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.sweeps.sweep import Run
from delg_jax.sweeps.sweep_spec import SUBJECT, Spec

MAX_RUNS = 1000
_LONGEST = 120  # characters of a name; file systems allow 255 bytes and some tools append to it
_SEED = "seed"


def expand(base: ml_collections.ConfigDict, spec: Spec, max_runs: int = MAX_RUNS) -> list[Run]:
    """Lists the runs of a sweep; seeds vary fastest, then draws, grid and settings.

    A draw equal to an earlier one, as may happen with a choice, is left out.

    Args:
      base: the configuration whose fields are varied.
      spec: the sweep.
      max_runs: limit on the number of runs.

    Returns:
      The runs. Fields named `seed`, in any section, do not count for the group.

    Raises:
      UserError: for too many runs, a field that does not exist, a value of another type, or a
        setting that occurs twice.
    """
    counts = [max(len(spec.settings), 1), *map(len, spec.grid.values())]
    count = math.prod([*counts, max(spec.draws, 1), max(len(spec.seeds), 1)])
    if count > max_runs:
        raise UserError(SUBJECT, count, f"are more runs than --max_runs={max_runs}")
    grid = {field: _alternatives(base, field, values) for field, values in spec.grid.items()}
    settings = [_fitted(base, setting) for setting in spec.settings] or [{}]
    for number, setting in enumerate(settings):
        if setting in settings[:number]:
            raise UserError(f"{SUBJECT}: settings", setting, "occurs twice")
    draws = [_fitted(base, draw) for draw in _draws(spec)]
    seeds = [_fitted(base, {_SEED: seed}) for seed in spec.seeds] or [{}]
    products = itertools.product(*grid.values())
    combinations = [dict(zip(grid, values, strict=True)) for values in products]
    overrides = [
        {**setting, **combination, **draw, **seed}
        for setting, combination, draw, seed in itertools.product(
            settings, combinations, draws, seeds
        )
    ]
    return _named(overrides, spec.verbs)


def _draws(spec: Spec) -> list[dict[str, Any]]:
    """Values of the random fields, each combination once; one empty draw without such fields."""
    draws: list[dict[str, Any]] = []
    for number in range(max(spec.draws, 1)):
        draw = {
            field: distribution.draw(field, spec.draw_seed, number)
            for field, distribution in spec.random.items()
        }
        if draw not in draws:
            draws.append(draw)
    return draws


def _alternatives(base: ml_collections.ConfigDict, field: str, values: Sequence[Any]) -> list[Any]:
    """Values of a field in its type, without duplicates."""
    fitted = [_fitted(base, {field: value})[field] for value in values]
    for number, value in enumerate(fitted):
        if value in fitted[:number]:
            raise UserError(f"config.{field}", value, "occurs twice in the sweep")
    return fitted


def _fitted(base: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides in the types of their fields: lists become tuples, and 1 may become 1.0."""
    changed = configuration.override(base, overrides)
    return {path: _field(changed, path) for path in overrides}


def _field(tree: ml_collections.ConfigDict, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def _named(settings: Sequence[Mapping[str, Any]], verbs: tuple[str, ...]) -> list[Run]:
    names = [_folder(overrides) for overrides in settings]
    same = [name.lower() for name in names]  # some file systems ignore case
    runs = []
    for name, overrides in zip(names, settings, strict=True):
        if same.count(name.lower()) > 1:
            name = _hashed(name, overrides)
        group = {f: v for f, v in overrides.items() if f.rpartition(".")[2] != _SEED}
        runs.append(Run(name, overrides, verbs, _readable(group) or "all"))
    return runs


def _readable(overrides: Mapping[str, Any]) -> str:
    return " ".join(f"{path}={_text(value)}" for path, value in overrides.items())


def _text(value: Any) -> str:
    return ",".join(map(_text, value)) if isinstance(value, tuple) else str(value)


def _folder(overrides: Mapping[str, Any]) -> str:
    """A valid folder name, as readable as possible."""
    text = "_".join(f"{path}={_text(value)}" for path, value in overrides.items())
    name = re.sub(r"[^A-Za-z0-9._=,+-]", "-", text)
    return name if name == text and len(name) <= _LONGEST else _hashed(name, overrides)


def _hashed(name: str, overrides: Mapping[str, Any]) -> str:
    content = json.dumps(overrides, sort_keys=True)
    suffix = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - len(suffix) - 1]}-{suffix}"
