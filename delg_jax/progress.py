"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from typing import Self

from tqdm import tqdm

_LOG = logging.getLogger(__name__)

_LINE_SECONDS = 30.0  # between log lines where there is no terminal


class Progress:
    """Counts items and shows rate and time left; use it in a `with` block.

    Args:
      title: name of the work.
      total: number of items.
      unit: name of an item.
      done: items that were finished earlier.
    """

    def __init__(self, title: str, total: int, unit: str = "image", done: int = 0) -> None:
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, desc=title, unit=unit, disable=not self._terminal
        )
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = self._logged = done
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        """Starts the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the display."""
        self._bar.close()
        if not self._terminal and self._done > self._logged:
            self._log()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more items; `note` is shown beside the bar."""
        self._done += count
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if not self._terminal and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._log(note)

    def _log(self, note: str = "") -> None:
        self._last_line, self._logged = time.monotonic(), self._done
        rate = (self._done - self._first) / max(self._last_line - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        _LOG.info(
            "%s: %d/%d, %.2f %s/s, %.0f s left %s",
            *(self._title, self._done, self._total, rate, self._unit, left, note),
        )
