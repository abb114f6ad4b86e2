"""The specification of a sweep, read from the command line and a JSON file."""

import ast
import dataclasses
import difflib
import math
import pathlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from delg_jax import configuration, text_files
from delg_jax.errors import UserError, require_choice

SUBJECT = "--sweep"
VERBS = ("train", "evaluate")
_DIGITS = 6  # significant digits of a drawn number, which is part of names and tables


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The distribution that values of a field are drawn from.

    Attributes:
      kind: key of `KINDS`.
      arguments: both ends of a range, inclusive, or the values of a choice.
    """

    kind: str
    arguments: tuple[Any, ...]

    def draw(self, field: str, seed: int, number: int) -> Any:
        """Draws a value, which depends on the arguments alone.

        Args:
          field: the field.
          seed: of the sweep.
          number: of the draw, from 0.
        """
        share = random.Random(f"{seed} {field} {number}").random()
        return KINDS[self.kind](self.arguments, share)


def _uniform(ends: Sequence[float], share: float) -> float:
    return _rounded(ends[0] + share * (ends[1] - ends[0]), ends)


def _loguniform(ends: Sequence[float], share: float) -> float:
    return _rounded(ends[0] * (ends[1] / ends[0]) ** share, ends)


def _rounded(value: float, ends: Sequence[float]) -> float:
    return min(max(float(f"{value:.{_DIGITS}g}"), float(ends[0])), float(ends[1]))


def _integers(ends: Sequence[int], share: float) -> int:
    return ends[0] + math.floor(share * (ends[1] - ends[0] + 1))


def _choice(values: Sequence[Any], share: float) -> Any:
    return values[math.floor(share * len(values))]


# Maps the arguments and a uniform number in [0, 1) to a value
KINDS: dict[str, Callable[[Sequence[Any], float], Any]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "integers": _integers,
    "choice": _choice,
}


def distribution(subject: str, kind: str, arguments: Any) -> Distribution:
    """Checks and makes a distribution.

    Args:
      subject: for errors.
      kind: key of `KINDS`.
      arguments: list of both ends, or of the values of a choice.

    Raises:
      UserError: for an unknown kind, or arguments that do not fit it.
    """
    require_choice(subject, kind, tuple(KINDS))
    arguments = tuple(arguments) if isinstance(arguments, list | tuple) else (arguments,)
    if kind == "choice":
        if not arguments:
            raise UserError(subject, "choice()", "needs values")
        return Distribution(kind, arguments)
    number = int if kind == "integers" else int | float
    shown = f"{kind}({', '.join(map(repr, arguments))})"
    fit = len(arguments) == 2 and all(_is_number(end, number) for end in arguments)
    if not fit or not arguments[0] < arguments[1]:
        noun = "whole numbers" if kind == "integers" else "numbers"
        raise UserError(subject, shown, f"needs two {noun}, the smaller one first")
    if kind == "loguniform" and arguments[0] <= 0:
        raise UserError(subject, shown, "needs numbers above 0")
    return Distribution(kind, arguments)


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def parse(subject: str, text: str) -> Distribution | None:
    """Parses `kind(argument, ...)`; None if the text is not a known distribution.

    Args:
      subject: for errors.
      text: for example `loguniform(1e-4,1e-2)`.

    Raises:
      UserError: for arguments that do not fit.
    """
    call = re.fullmatch(rf"({'|'.join(KINDS)})\((.*)\)", text)
    if not call:
        return None
    return distribution(subject, call[1], values(call[2]))


def values(text: str) -> list[Any]:
    """Parses `value,value,...`: Python literals, otherwise strings."""
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [_literal(part.strip()) for part in text.split(",")] if text else []


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


@dataclasses.dataclass(frozen=True)
class Spec:
    """A sweep; its runs are settings times grid times draws times seeds.

    Attributes:
      settings: fields that change together, by dotted path, one mapping for each setting.
      grid: values by field; all combinations are run.
      random: distributions by field; each draw takes a value of every one.
      draws: number of draws; 0 without random fields.
      draw_seed: seed of the draws.
      seeds: values of the field `seed` for each setting; empty keeps that of the configuration.
      verbs: of every run.
    """

    settings: tuple[Mapping[str, Any], ...] = ()
    grid: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    random: Mapping[str, Distribution] = dataclasses.field(default_factory=dict)
    draws: int = 0
    draw_seed: int = 0
    seeds: tuple[int, ...] = ()
    verbs: tuple[str, ...] = VERBS


def read(specs: Sequence[str], given: Mapping[str, Any]) -> Spec:
    """Reads a sweep from `field=values` and a JSON file with attributes of `Spec`.

    Args:
      specs: `field=value,value,...`, `field=loguniform(1e-4,1e-2)`, or the path of a file.
      given: further attributes (`draws`, `seeds`, ...) by name; None if not given.

    Returns:
      The sweep, not yet checked against a configuration.

    Raises:
      UserError: for anything malformed, or given twice.
    """
    content: dict[str, Any] = {}
    files = [text for text in specs if "=" not in text or pathlib.Path(text).is_file()]
    if len(files) > 1:
        raise UserError(SUBJECT, files[1], f"is a second file, beside {files[0]}")
    if files:
        content = _read_file(pathlib.Path(configuration.local_path(SUBJECT, files[0])))
    for name in ("grid", "random"):
        content[name] = dict(content.get(name, {}))
    for text in specs:
        if text not in files:
            _add(content, text)
    for name, value in given.items():
        if value is not None:
            if name in content:
                raise UserError(f"--{name}", value, f"is also in {files[0]}")
            content[name] = _checked(f"--{name}", name, value)
    return _consistent(Spec(**content))


def _add(content: dict[str, Any], text: str) -> None:
    """Adds `field=values` to what is in a sweep already."""
    field, _, rest = text.partition("=")
    if not field or not rest:
        raise UserError(SUBJECT, text, "must be field=value,value,... or an existing JSON file")
    if field in content["grid"] or field in content["random"]:
        raise UserError(SUBJECT, text, f"{field} occurs twice")
    drawn = parse(SUBJECT, rest)
    if drawn is not None:
        content["random"][field] = drawn
    else:
        content["grid"][field] = tuple(values(rest))


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A JSON object without duplicate names."""
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise UserError(str(path), name, "occurs twice")
        return dict(pairs)

    if not path.exists():
        rule = "must be field=value,value,... or an existing JSON file"
        raise UserError(SUBJECT, str(path), rule)
    found = text_files.read_json(path, SUBJECT, object_pairs_hook=unique)
    if not isinstance(found, dict):
        raise UserError(SUBJECT, str(path), "must hold a JSON object")
    known = [field.name for field in dataclasses.fields(Spec)]
    for name in found:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(str(path), name, f"{hint}names are {', '.join(known)}")
    return {name: _checked(f"{path}: {name}", name, value) for name, value in found.items()}


def _checked(subject: str, name: str, value: Any) -> Any:
    """An attribute of a sweep, converted from its JSON value."""
    if name in ("draws", "draw_seed"):
        least = 1 if name == "draws" else 0
        if type(value) is not int or value < least:
            raise UserError(subject, value, f"must be a whole number from {least}")
        return value
    if name in ("grid", "random"):
        return _fields(subject, name, value)
    if not isinstance(value, list | tuple) or not value:
        raise UserError(subject, value, "must be a list with at least one element")
    if name == "settings":
        for setting in value:
            if not isinstance(setting, dict) or not setting:
                raise UserError(subject, setting, 'must be an object {"field": value, ...}')
        return tuple(value)
    kind, noun = (int, "whole number") if name == "seeds" else (str, "verb")
    for number, element in enumerate(value):
        if type(element) is not kind:
            raise UserError(subject, element, f"must be a {noun}")
        if element in value[:number]:
            raise UserError(subject, element, "occurs twice")
    return tuple(value)


def _fields(subject: str, name: str, value: Any) -> dict[str, Any]:
    """`grid` or `random`, from field to values or distribution."""
    form = '{"field": [value, ...]}'
    form = form if name == "grid" else '{"field": {"uniform": [smallest, largest]}}'
    kind = list if name == "grid" else dict
    if not isinstance(value, dict):
        raise UserError(subject, value, f"must be an object {form}")
    for field, rest in value.items():
        if not isinstance(rest, kind) or not rest or (kind is dict and len(rest) != 1):
            raise UserError(f"{subject}: {field}", rest, f"must be as in {form}")
    if name == "grid":
        return {field: tuple(rest) for field, rest in value.items()}
    return {
        field: distribution(f"{subject}: {field}", *next(iter(rest.items())))
        for field, rest in value.items()
    }


def _consistent(spec: Spec) -> Spec:
    """The sweep; a UserError if it contradicts itself."""
    if not (spec.settings or spec.grid or spec.random or spec.seeds):
        raise UserError(SUBJECT, None, "names no field, and --seeds is not given")
    if bool(spec.random) != bool(spec.draws):
        rule = "needs --draws" if spec.random else "is given, but no field is random"
        raise UserError(SUBJECT if spec.random else "--draws", _first(spec), rule)
    sections = [("settings", {f for setting in spec.settings for f in setting})]
    sections += [("grid", set(spec.grid)), ("random", set(spec.random))]
    sections += [("seeds", {"seed"} if spec.seeds else set())]
    for number, (name, fields) in enumerate(sections):
        for other, others in sections[:number]:
            for field in sorted(fields & others):
                raise UserError(SUBJECT, field, f"is in both {other} and {name}")
    return spec


def _first(spec: Spec) -> Any:
    return next(iter(spec.random)) if spec.random else spec.draws
