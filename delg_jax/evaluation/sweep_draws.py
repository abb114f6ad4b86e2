"""Random values of a configuration field: the distributions that a sweep draws from."""

import ast
import dataclasses
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from delg_jax.errors import UserError, require_choice

_DIGITS = 6  # significant ones of a drawn number, which is also read in names and tables


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What the values of a field are drawn from.

    Attributes:
      kind: key of `KINDS`.
      arguments: both ends of a range, which belong to it, or the values of a choice.
    """

    kind: str
    arguments: tuple[Any, ...]

    def draw(self, field: str, seed: int, number: int) -> Any:
        """Draws a value, the same for the same arguments, whatever else is drawn.

        Args:
          field: that gets the value.
          seed: of all draws of a sweep.
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


# Value of a distribution, of its arguments and a share from 0 to below 1.
KINDS: dict[str, Callable[[Sequence[Any], float], Any]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "integers": _integers,
    "choice": _choice,
}


def distribution(subject: str, kind: str, arguments: Any) -> Distribution:
    """Checks and makes a distribution.

    Args:
      subject: where it is written, for errors.
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
    """Reads `kind(argument, ...)`; None if the text is no call of a known kind.

    Args:
      subject: where it is written, for errors.
      text: for example `loguniform(1e-4,1e-2)`.

    Raises:
      UserError: for arguments that do not fit.
    """
    call = re.fullmatch(rf"({'|'.join(KINDS)})\((.*)\)", text)
    if not call:
        return None
    return distribution(subject, call[1], values(call[2]))


def values(text: str) -> list[Any]:
    """Reads `value,value,...`: Python literals, or else the texts between the commas."""
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [_literal(part.strip()) for part in text.split(",")] if text else []


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
