"""A request to stop: SIGTERM, which schedulers send before they reclaim a machine, or Ctrl-C."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self, TypeVar

import jax
from jax.experimental import multihost_utils

from delg_jax import distributed

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Interrupted(SystemExit):  # noqa: N818 - it ends the program, as its base does
    """Ends a run that was asked to stop; its code is the exit status of the program."""


class StopRequest:
    """Records SIGTERM and Ctrl-C instead of ending the program; use it in a `with` block.

    With several processes, `jax.distributed` chooses the poll at which all of them stop. A second
    Ctrl-C ends the program at once.

    Args:
      status: exit status of a run that was asked to stop.
    """

    def __init__(self, status: int) -> None:
        self._status = status
        self._received = self._raises = self._agreed = self._ends_first = False
        self._polls = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Installs the handlers; `jax.distributed` handles SIGTERM of several processes."""
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT] + [signal.SIGTERM] * (jax.process_count() == 1)
            self._previous = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Restores the previous handlers."""
        if kind is Interrupted:
            _LOG.info("interrupted, exit status %d; the same command resumes", self._status)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, _: FrameType | None) -> None:
        if self._ends_first:
            self._ends_first = False
            raise self.interruption()
        if number == signal.SIGINT and self._received:
            raise KeyboardInterrupt
        self._received = True
        if self._raises:
            raise self.interruption()
        if jax.process_count() > 1:  # only SIGTERM reaches the other processes
            os.kill(os.getpid(), signal.SIGTERM)

    def interruption(self) -> Interrupted:
        """The exception that ends the run; the same command resumes it."""
        return Interrupted(self._status)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, a request raises `Interrupted` wherever the program is.

        Use it where there is nothing to save. Several processes stop while the first one works
        alone, as when it prepares data; elsewhere they wait for the next poll, because if one left,
        the others would wait for it.
        """
        if jax.process_count() > 1:
            with distributed.stopping_first(self._end_first):
                yield
            return
        before, self._raises = self._raises, True
        try:
            if self._received:
                raise self.interruption()
            yield
        finally:
            self._raises = before

    def _end_first(self) -> None:
        """Makes the main thread raise `Interrupted`; called by another one."""
        if self._previous:  # it has our handler
            self._ends_first = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def arrived(self) -> bool:
        """Whether to stop here; the same in all processes, which must poll equally often."""
        if jax.process_count() == 1:
            return self._received
        if not self._agreed:
            self._polls += 1
            self._agreed = multihost_utils.reached_preemption_sync_point(self._polls)
        return self._agreed

    def items(self, iterator: Iterator[T]) -> Iterator[T]:
        """Yields items until there are no more, or a request to stop arrives.

        The request is polled before each item, and ends the wait for one.
        """
        while not self.arrived():
            try:
                with self.at_once():
                    item = next(iterator)
            except (StopIteration, Interrupted):
                return
            yield item
