"""Configurations: the argument of a config file, and the difference between two trees."""

import difflib
import importlib.util
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from delg_jax.errors import UserError

_LARGEST = 2**63 - 1  # whole number


def parse_argument(argument: str | None, defaults: dict[str, Any]) -> ml_collections.ConfigDict:
    """Parses what follows the colon in `--config=FILE:argument`.

    The argument is a list `name=value,name=value`; a bare `name` sets a boolean to True.

    Args:
      argument: the text, may be empty.
      defaults: every name that may occur, with its value if it does not; values are bool, int,
        float or str and fix the type.

    Returns:
      A locked tree of the names and their values.

    Raises:
      UserError: for an unknown name or a value of another type.
    """
    values = dict(defaults)
    for part in filter(None, (argument or "").split(",")):
        name, has_value, text = part.partition("=")
        if name not in defaults:
            raise UserError("--config argument", name, _unknown_name(name, defaults))
        kind = type(defaults[name])
        if not has_value and kind is not bool:
            raise UserError("--config argument", name, f"needs a value: {name}={defaults[name]!r}")
        values[name] = _parse(name, text if has_value else "true", kind)
    return ml_collections.ConfigDict(values).lock()


def _unknown_name(name: str, known: dict[str, Any]) -> str:
    if not known:
        return "this config takes no argument"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known names are {', '.join(known)}"


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UserError(f"--config argument {name}", text, "must be true or false")
        return text.lower() in ("true", "1")
    try:
        return kind(text)
    except ValueError as error:
        rule = f"must be of type {kind.__name__}"
        raise UserError(f"--config argument {name}", text, rule) from error


def load(path: str, argument: str = "") -> ml_collections.ConfigDict:
    """Runs `get_config(argument)` of a config file, for notebooks and experiments.

    Args:
      path: the Python file.
      argument: what follows the colon on the command line.

    Returns:
      The locked tree.

    Raises:
      UserError: if the file does not exist.
    """
    if not pathlib.Path(path).is_file() or not str(path).endswith(".py"):
        raise UserError("--config", path, "must be an existing Python file (.py)")
    spec = importlib.util.spec_from_file_location("delg_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument).lock()


def override(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Changes fields of a copy.

    Args:
      config: the whole tree; stays as it is.
      overrides: values by dotted path.

    Returns:
      The locked copy.

    Raises:
      UserError: for a field that does not exist, a value of another type, or no finite number.
    """
    changed = config.copy_and_resolve_references()
    known = flatten(config)
    for path, value in overrides.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"config.{path}", value, f"is no field of the configuration{hint}")
        section, _, name = path.rpartition(".")
        tree = changed
        for part in filter(None, section.split(".")):
            tree = tree[part]
        before = tree[name]
        try:
            if before is not None and isinstance(value, bool) != isinstance(before, bool):
                raise TypeError  # a ConfigDict takes True for 1
            tree[name] = value
        except (TypeError, OverflowError) as error:
            rule = f"must be of type {type(before).__name__}"
            raise UserError(f"config.{path}", value, rule) from error
        require_kind(path, before, tree[name])
    return changed.lock()


def require_kind(path: str, before: Any, after: Any) -> None:
    """Refuses what a `ConfigDict` takes although it is of another kind, or no usable number.

    Args:
      path: of the field, dotted.
      before: its value in the configuration that is changed; None allows any kind.
      after: its new value.

    Raises:
      UserError: for None, a section, a tuple with elements of another kind, NaN, an infinite
        number, or a whole number of more than 64 bits.
    """
    subject = f"config.{path}"
    if isinstance(after, ml_collections.ConfigDict):
        raise UserError(subject, dict(after), "is a section; set one of its fields")
    if before is not None and not isinstance(after, type(before)):
        raise UserError(subject, after, f"must be of type {type(before).__name__}")
    kinds = {_kind(element) for element in before} if isinstance(before, tuple) else set()
    for element in after if isinstance(after, tuple) else (after,):
        if kinds and _kind(element) not in kinds:
            raise UserError(subject, after, f"must hold elements like {before[0]!r}")
        if isinstance(element, float) and not math.isfinite(element):
            raise UserError(subject, after, "must be finite")
        if isinstance(element, int) and not -_LARGEST <= element <= _LARGEST:
            raise UserError(subject, after, "must be a whole number of at most 64 bits")


def require_seed(config: ml_collections.ConfigDict) -> None:
    """Refuses seeds that no generator takes, or that two of would be the same to.

    Args:
      config: the whole tree.

    Raises:
      UserError: if `config.seed` is negative or has more than 32 bits.
    """
    if config.seed < 0:
        raise UserError("config.seed", config.seed, "must not be negative")
    if config.seed >= 2**32:
        raise UserError("config.seed", config.seed, "must be below 2^32")


def _kind(element: Any) -> type:
    is_number = isinstance(element, int | float) and not isinstance(element, bool)
    return float if is_number else type(element)


def flatten(config: ml_collections.ConfigDict, sections: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fields by dotted path as JSON values; only those under `sections`, or all if empty."""
    plain = json.loads(config.to_json())
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, child in value.items():
                visit(f"{prefix}.{name}" if prefix else name, child)
        else:
            flat[prefix] = value

    visit("", plain)
    return within(flat, sections) if sections else flat


def unflatten(flat: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The tree of fields by dotted path, as they were stored; a list was a tuple."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = tuple(value) if isinstance(value, list) else value
    return ml_collections.ConfigDict(tree)


def within(flat: dict[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a flattened tree that are, or lie under, one of `sections`."""
    return {
        path: value
        for path, value in flat.items()
        if any(path == section or path.startswith(f"{section}.") for section in sections)
    }


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines `field: old -> new` for every field of two flattened trees that differs."""
    absent = "(absent)"
    return [
        f"config.{path}: {old.get(path, absent)!r} -> {new.get(path, absent)!r}"
        for path in sorted(set(old) | set(new))
        if old.get(path, absent) != new.get(path, absent)
    ]
