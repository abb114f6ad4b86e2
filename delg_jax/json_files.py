"""JSON files that may be damaged: read whole, and checked before anything is made of them."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from delg_jax.errors import UserError

_LARGEST = 1e300  # beyond it a whole number cannot be shown

Check = Callable[[Any, str], None]  # of a value and where it stands


class _Damaged(Exception):
    """A value that cannot be: where it stands, and the rule."""


def read(path: pathlib.Path, subject: str, check: Check, remedy: str = "") -> Any:
    """The content of a file.

    Args:
      path: of the file.
      subject: what it is, for errors.
      check: what its content must pass; of the functions below.
      remedy: what to do if it is damaged, after a semicolon; "" if nothing helps.

    Returns:
      The content; None if there is no file.

    Raises:
      UserError: if it is damaged: the file, the place in it, and the rule.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check(content, "")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        rule = f"must be whole JSON ({error})"
    except _Damaged as damage:
        rule = str(damage)
    else:
        return content
    raise UserError(subject, str(path), rule + (f"; {remedy}" if remedy else ""))


def read_lines(path: pathlib.Path, subject: str, check: Check) -> list[Any]:
    """The values of a file that is appended to, an object in each line.

    Args:
      path: of the file.
      subject: what it is, for errors.
      check: what each value must pass.

    Returns:
      The values; none if there is no file. The end of a line that a kill left is not read.

    Raises:
      UserError: if a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(subject, str(path), f"must be text ({error})") from error
    values = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("}"):
            continue
        try:
            values.append(json.loads(line))
            check(values[-1], "")
        except (ValueError, RecursionError, _Damaged) as error:
            rule = f"must hold a whole object in line {number} ({error})"
            raise UserError(subject, str(path), rule) from error
    return values


def require(holds: bool, where: str, rule: str) -> None:
    """Refuses the file unless something holds of the value at a place; for checks alone."""
    if not holds:
        raise _Damaged(f"{where or 'all of it'} {rule}")


def anything(value: Any, where: str) -> None:
    """Checks for nothing."""
    del value, where


def number(value: Any, where: str) -> None:
    """Checks for a number, which may be not-a-number or infinite."""
    numeric = isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST)
    require(numeric, where, "must be a number")


def finite(value: Any, where: str) -> None:
    """Checks for a number that is one."""
    number(value, where)
    require(math.isfinite(value), where, "must be finite")


def known(value: Any, where: str) -> None:
    """Checks for a finite number, or null where there was nothing to measure."""
    if value is not None:
        finite(value, where)


def count(value: Any, where: str) -> None:
    """Checks for a whole number that is not negative."""
    require(type(value) is int and 0 <= value < _LARGEST, where, "must be a count")


def text(value: Any, where: str) -> None:
    """Checks for a text."""
    require(isinstance(value, str), where, "must be a text")


def each(check: Check) -> Check:
    """Makes the check for an object whose values pass `check`."""

    def checked(value: Any, where: str) -> None:
        require(isinstance(value, dict), where, "must be an object")
        for name, inner in value.items():
            check(inner, f"{where}.{name}" if where else name)

    return checked


def every(check: Check) -> Check:
    """Makes the check for a list whose values pass `check`."""

    def checked(value: Any, where: str) -> None:
        require(isinstance(value, list), where, "must be a list")
        for place, inner in enumerate(value, 1):
            check(inner, f"{where}[{place}]")

    return checked


def fields(needed: Mapping[str, Check], further: Mapping[str, Check] | None = None) -> Check:
    """Makes the check for an object that has all `needed` fields, and may have `further` ones."""

    def checked(value: Any, where: str) -> None:
        require(isinstance(value, dict), where, "must be an object")
        for name in needed:
            require(name in value, f"{where}.{name}" if where else name, "must be there")
        for name, check in {**needed, **(further or {})}.items():
            if name in value:
                check(value[name], f"{where}.{name}" if where else name)

    return checked
