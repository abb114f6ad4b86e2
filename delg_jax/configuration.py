"""Configurations: loading, overriding, checking, flattening and comparing trees of fields."""

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from delg_jax import config_files, migrations
from delg_jax.errors import UserError

_LARGEST = 2**63 - 1  # whole number
# Field -> the field that it describes, without which it decides nothing
_DESCRIBES = {
    "model.pretrained_source": "model.pretrained",
    "model.pretrained_mapping": "model.pretrained",
}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")  # pathlib would make it a folder `gs:`
# Fields that name a file or folder; `~` at the start is the home directory
PATHS = (
    "model.pretrained",
    "model.pretrained_mapping",
    "model.checkpoint",
    "data.root",
    "data.ground_truth",
    "data.distractors",
    "data.exclude",
    "data.tfds_dir",
    "extract.imported_local",
    "extract.imported_global",
)


def parse_argument(argument: str | None, defaults: dict[str, Any]) -> ml_collections.ConfigDict:
    """Parses the argument in `--config=FILE:argument`.

    The argument is a list `name=value,name=value`; a bare `name` sets a boolean to True.

    Args:
      argument: the text; can be empty.
      defaults: default value of each known name; bool, int, float or str, which fixes the type.

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


def load(path: str | os.PathLike, argument: str = "") -> ml_collections.ConfigDict:
    """Runs `get_config(argument)` of a config file, as `--config` does.

    The file can import ours (`from configs import default`) and the files beside it, from any
    working directory.

    Args:
      path: the Python file, or the bare name of one of our configs (`quickstart`).
      argument: what follows the colon on the command line.

    Returns:
      The locked tree, with every field of configs/default.py.

    Raises:
      UserError: if there is no such file, it fails (with file and line), or a field is missing,
        unknown, or of another type than in configs/default.py.
    """
    name = local_path("--config", os.fspath(path))
    config = config_files.run(name, argument)
    _require_fields(config, config_files.run("default"), "")
    expand_paths(config)
    return config.lock()


def _require_fields(
    config: ml_collections.ConfigDict, known: ml_collections.ConfigDict, section: str
) -> None:
    """Refuses a tree with other fields than a known one, or with values of another type."""
    for name, value in config.items():
        if name not in known:
            rule = no_field(f"{section}{name}", [f"{section}{other}" for other in known])
            raise UserError(f"config.{section}{name}", value, rule)
    for name, before in known.items():
        path = f"{section}{name}"
        if name not in config:
            rule = "is missing; start the config file from default.get_config(), with "
            raise UserError(f"config.{path}", None, f"{rule}`from configs import default`")
        if not isinstance(before, ml_collections.ConfigDict):
            require_kind(path, before, config[name])
        elif isinstance(config[name], ml_collections.ConfigDict):
            _require_fields(config[name], before, f"{path}.")
        else:
            raise UserError(f"config.{path}", config[name], "must be a section of fields")


def local_path(subject: str, path: str) -> str:
    """Replaces `~` or `~user` at the start of a path by the home directory.

    Args:
      subject: the flag or field, for the error.
      path: of a file or folder; can be empty.

    Raises:
      UserError: if there is no such user or home (a container may run as a user who has none), or
        the path is of another file system (`gs://bucket`).
    """
    scheme = _SCHEME.match(path)
    if scheme:
        rule = f"must be a path of this machine, not {scheme[0]}; copy the files, or mount them "
        raise UserError(subject, path, f"{rule}(gcsfuse, mount-s3)")
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.partition("/")[0]
        if user == "~":
            raise UserError(subject, path, "this user has no home folder; name another folder")
        rule = f"{user} is not a user of this machine; for a folder of that name write ./{user}"
        raise UserError(subject, path, rule)
    return expanded


def expand_paths(config: ml_collections.ConfigDict) -> None:
    """Expands `~` in the fields of a tree that are paths, in place."""
    for path in PATHS:
        section, name = path.split(".")
        value = config.get(section, {}).get(name)
        if value:  # stored configurations of older versions lack some
            config[section][name] = local_path(f"config.{path}", value)


def override(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Changes fields of a copy.

    Args:
      config: the whole tree; not changed.
      overrides: values by dotted path.

    Returns:
      The locked copy.

    Raises:
      UserError: for an unknown field, a value of another type, or a number that is not finite.
    """
    changed = config.copy_and_resolve_references()
    known = flatten(config)
    for path, value in overrides.items():
        if path not in known:
            raise UserError(f"config.{path}", value, no_field(path, known))
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
        if path in PATHS:
            tree[name] = local_path(f"config.{path}", tree[name])
    return changed.lock()


def no_field(path: str, known: Iterable[str]) -> str:
    """The rule for an unknown field, with its new name or a similar one.

    Args:
      path: of the field, dotted.
      known: paths of fields that exist.
    """
    past = migrations.what_became_of(path)
    if past:
        return past
    close = difflib.get_close_matches(path, list(known), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"is not a field of the configuration{hint}"


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
    """Raises a UserError if `config.seed` is negative or has more than 32 bits."""
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
    """The tree of fields by dotted path, as stored; lists become tuples."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = tuple(value) if isinstance(value, list) else value
    return ml_collections.ConfigDict(tree)


def within(flat: dict[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a flattened tree that are one of `sections`, or below one."""
    below = tuple(f"{section}." for section in sections)
    return {p: value for p, value in flat.items() if p in sections or p.startswith(below)}


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines `field: old -> new` for the fields that differ between two flattened trees.

    A field that describes another is left out where the other is empty in both trees.
    """
    absent = "(absent)"

    def described(path: str) -> bool:
        other = _DESCRIBES.get(path)
        return other is None or not old.get(other, absent) == new.get(other, absent) == ""

    return [
        f"config.{path}: {old.get(path, absent)!r} -> {new.get(path, absent)!r}"
        for path in sorted(set(old) | set(new))
        if old.get(path, absent) != new.get(path, absent) and described(path)
    ]
