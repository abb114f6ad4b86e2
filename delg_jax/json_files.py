"""JSON files with a checksum, whose structure is checked when they are read.

Written files have a checksum of their content in the field `checksum` of the outermost object.
Files of earlier versions, without a checksum, are read as well.
"""

import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from delg_jax.errors import UserError

_LARGEST = 1e300  # larger whole numbers cannot be converted to float
_MOST_LEVELS = 100  # of lists and objects inside each other; recursion ends at about 1000
_CHECKSUM, _PREFIX = "checksum", "crc32:"
_OLD_CHECKSUM = re.compile("[0-9a-f]{16}")  # of earlier versions; checked by its own reader

Check = Callable[[Any, str], None]  # takes a value and its place


class _Damaged(Exception):
    """A damaged value: its place, and the rule it breaks."""


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content as JSON stores it, with its checksum last; `read` removes the checksum."""
    plain = json.loads(json.dumps(dict(content)))
    plain.pop(_CHECKSUM, None)
    return {**plain, _CHECKSUM: _checksum(plain)}


def unsigned(content: Any, subject: str, place: str) -> Any:
    """What `signed` was given; content of earlier versions, without a checksum, is returned as is.

    Args:
      content: as `signed` returned it.
      subject: name for errors.
      place: of the content, for errors.

    Raises:
      UserError: if it is damaged.
    """
    try:
        return _unsigned(content)
    except _Damaged as damage:
        raise UserError(subject, place, f"is damaged: {damage}") from damage


def line(content: Mapping[str, Any]) -> str:
    """Content with its checksum as a line of a file for `read_lines`."""
    return json.dumps(signed(content)) + "\n"


def read(path: pathlib.Path, subject: str, check: Check, remedy: str = "") -> Any:
    """The content of a file.

    Args:
      path: of the file.
      subject: name for errors.
      check: checks the content; made by the functions below.
      remedy: what to do if it is damaged; "" if nothing helps.

    Returns:
      The content; None if there is no file.

    Raises:
      UserError: if it is damaged; names the file, the place and the rule.
    """
    try:
        content = _unsigned(shallow(json.loads(path.read_text(encoding="utf-8"))))
        check(content, "")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        rule = f"must be valid JSON ({error})"
    except _Damaged as damage:
        rule = str(damage)
    else:
        return content
    raise UserError(subject, str(path), rule + (f"; {remedy}" if remedy else ""))


def read_lines(path: pathlib.Path, subject: str, check: Check) -> list[Any]:
    """The values of a file with one object per line, to which lines are appended.

    Args:
      path: of the file.
      subject: name for errors.
      check: checks each value.

    Returns:
      The values; none if there is no file. A last line that was cut off by a kill is ignored.

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
            values.append(_unsigned(shallow(json.loads(text))))
            check(values[-1], "")
        except (ValueError, RecursionError, _Damaged) as error:
            rule = f"line {number} must be a whole object ({error})"
            raise UserError(subject, str(path), rule) from error
    return values


def shallow(content: Any) -> Any:
    """The content of a file; a ValueError if lists and objects are nested too deeply.

    What goes through it level by level needs no limit of its own. Libraries without one end the
    process.
    """
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(_MOST_LEVELS):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = [child for one in inside for child in one if isinstance(child, dict | list)]
        if not level:
            return content
    raise ValueError(f"more than {_MOST_LEVELS} levels of lists and objects")


def _holds_object(text: str) -> bool:
    """Whether a line holds a whole object, not only the beginning that a kill leaves."""
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _checksum(plain: dict[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f"{_PREFIX}{zlib.crc32(text.encode()):08x}"


def _unsigned(content: Any) -> Any:
    """Content without its checksum, which must be right."""
    if not isinstance(content, dict):
        return content
    # By name or by value, because either may be damaged
    found = {
        name: value
        for name, value in content.items()
        if name == _CHECKSUM or (isinstance(value, str) and value.startswith(_PREFIX))
    }
    earlier = found.get(_CHECKSUM)
    if not found or (isinstance(earlier, str) and _OLD_CHECKSUM.fullmatch(earlier)):
        return content
    plain = {name: value for name, value in content.items() if name not in found}
    require(found == {_CHECKSUM: _checksum(plain)}, "", "is damaged: the checksum differs")
    return plain


def require(holds: bool, where: str, rule: str) -> None:
    """Refuses the file unless a condition holds; only for use in checks."""
    if not holds:
        raise _Damaged(f"{where or 'the content'} {rule}")


def anything(value: Any, where: str) -> None:
    """Accepts every value."""
    del value, where


def number(value: Any, where: str) -> None:
    """Checks for a number; NaN and infinity are allowed."""
    numeric = isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST)
    require(numeric, where, "must be a number")


def finite(value: Any, where: str) -> None:
    """Checks for a finite number."""
    number(value, where)
    require(math.isfinite(value), where, "must be finite")


def known(value: Any, where: str) -> None:
    """Checks for a finite number, or null where nothing was measured."""
    if value is not None:
        finite(value, where)


def count(value: Any, where: str) -> None:
    """Checks for a non-negative whole number."""
    require(type(value) is int and 0 <= value < _LARGEST, where, "must be a count")


def text(value: Any, where: str) -> None:
    """Checks for a string."""
    require(isinstance(value, str), where, "must be a string")


def each(check: Check) -> Check:
    """A check for an object whose values pass `check`."""

    def checked(value: Any, where: str) -> None:
        require(isinstance(value, dict), where, "must be an object")
        for name, inner in value.items():
            check(inner, f"{where}.{name}" if where else name)

    return checked


def every(check: Check) -> Check:
    """A check for a list whose values pass `check`."""

    def checked(value: Any, where: str) -> None:
        require(isinstance(value, list), where, "must be a list")
        for place, inner in enumerate(value, 1):
            check(inner, f"{where}[{place}]")

    return checked


def fields(needed: Mapping[str, Check], further: Mapping[str, Check] | None = None) -> Check:
    """A check for an object that has all `needed` fields, and may have `further` ones."""

    def checked(value: Any, where: str) -> None:
        require(isinstance(value, dict), where, "must be an object")
        for name in needed:
            require(name in value, f"{where}.{name}" if where else name, "must be there")
        for name, check in {**needed, **(further or {})}.items():
            if name in value:
                check(value[name], f"{where}.{name}" if where else name)

    return checked
