"""Runs a property over generated cases, a few in the fast run and many in the slow one."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from delg_jax.errors import UserError

SECONDS = 60  # that one case may take; more is a hang
LONGEST = 4000  # characters of an error
_SHARE = 12  # of many cases that a fast run tries
_LEAST = 4
counts: dict[str, int] = {}  # cases tried, by property


def cases(many: int) -> pytest.MarkDecorator:
    """Gives a test `examples`: few of them fast, and `many` marked slow.

    DELG_EXAMPLES multiplies both.
    """
    times = float(os.environ.get("DELG_EXAMPLES", "1"))
    few = max(many // _SHARE, _LEAST)
    values = [max(int(count * times), 1) for count in (few, many)]
    slow = pytest.param(values[1], marks=pytest.mark.slow, id="many")
    return pytest.mark.parametrize("examples", [pytest.param(values[0], id="few"), slow])


def hold(examples: int, check: Callable[[Any], None], strategy: strategies.SearchStrategy) -> None:
    """Calls `check` with values of a strategy, the same ones each time.

    Args:
      examples: how many, at most.
      check: fails if the property does not hold.
      strategy: of the values.
    """

    def tried(case: Any) -> None:
        counts[check.__qualname__] = counts.get(check.__qualname__, 0) + 1
        with limited():
            check(case)

    tried.__qualname__ = check.__qualname__  # part of what the draws depend on
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(strategy)(tried))()


def outcome(action: Callable[[], Any]) -> Any:
    """What an action returns, or its UserError, which must be one line; others go through."""
    try:
        return action()
    except UserError as error:
        refusal = error
    text = str(refusal)
    assert len(text.splitlines()) == 1, text
    assert len(text) < LONGEST, text[:LONGEST]
    assert refusal.subject, text
    assert refusal.rule.strip(), text
    return refusal


@contextlib.contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raises a TimeoutError in a block that takes longer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"a case took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
