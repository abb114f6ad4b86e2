"""JSON files that may be damaged: read whole, and checked before anything is made of them.

What the program writes carries a checksum of its content, in the field `checksum` of the outermost
object. A file without one, by an earlier version, is read as it is.
"""

import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from delg_jax.errors import UserError

_LARGEST = 1e300  # beyond it a whole number cannot be shown
_CHECKSUM, _SIGN = "checksum", "crc32:"
_OF_BEFORE = re.compile("[0-9a-f]{16}")  # a checksum of earlier versions, for its own reader

Check = Callable[[Any, str], None]  # of a value and where it stands


class _Damaged(Exception):
    """A value that cannot be: where it stands, and the rule."""


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content as JSON keeps it, with its checksum behind; `read` takes the checksum out again."""
    plain = json.loads(json.dumps(dict(content)))
    plain.pop(_CHECKSUM, None)
    return {**plain, _CHECKSUM: _checksum(plain)}


def line(content: Mapping[str, Any]) -> str:
    """Content with its checksum as a line of a file for `read_lines`."""
    return json.dumps(signed(content)) + "\n"


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
        content = _unsigned(json.loads(path.read_text(encoding="utf-8")))
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
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(subject, str(path), f"must be text ({error})") from error
    if not _holds_object(lines[-1]):
        lines.pop()
    values = []
    for number, text in enumerate(lines, 1):
        try:
            values.append(_unsigned(json.loads(text)))
            check(values[-1], "")
        except (ValueError, RecursionError, _Damaged) as error:
            rule = f"must hold a whole object in line {number} ({error})"
            raise UserError(subject, str(path), rule) from error
    return values


def _holds_object(text: str) -> bool:
    """Whether there is more than the beginning of a line, which a kill leaves."""
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _checksum(plain: dict[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f"{_SIGN}{zlib.crc32(text.encode()):08x}"


def _unsigned(content: Any) -> Any:
    """Content without its checksum; damaged if that is another."""
    if not isinstance(content, dict):
        return content
    # By name or by value, because either may be what is damaged
    found = {
        name: value
        for name, value in content.items()
        if name == _CHECKSUM or (isinstance(value, str) and value.startswith(_SIGN))
    }
    earlier = found.get(_CHECKSUM)
    if not found or (isinstance(earlier, str) and _OF_BEFORE.fullmatch(earlier)):
        return content
    plain = {name: value for name, value in content.items() if name not in found}
    require(found == {_CHECKSUM: _checksum(plain)}, "", "must be what was written: it is damaged")
    return plain


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
