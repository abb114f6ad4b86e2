"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from typing import Self

from tqdm import tqdm

_LOG = logging.getLogger(__name__)

_FIRST_SECONDS = 5.0  # after which there is a log line, where there is no terminal
_LINE_SECONDS = 30.0  # between log lines


class Progress:
    """Counts items and shows rate and time left; use it in a `with` block.

    The first items do not count for the rate: they include compilation.

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
        self._done = self._logged = self._begun = done
        self._start = time.monotonic()
        self._next_line = self._start + _FIRST_SECONDS
        self._first: tuple[float, int] | None = None  # time and items of the first advance

    def __enter__(self) -> Self:
        """Starts the display."""
        if not self._terminal and self._done < self._total:
            _LOG.info("%s: %d/%d", self._title, self._done, self._total)
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the display."""
        self._bar.close()
        if not self._terminal and self._done > self._logged:
            self._log(ended=True)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more items; `note` is shown beside the bar."""
        self._done += count
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        if self._first is None:
            self._first = time.monotonic(), self._done
            self._bar.unpause()  # starts its clock again
            self._bar.initial = self._bar.n = self._done
            self._bar.refresh()
        else:
            self._bar.update(count)
        if not self._terminal and time.monotonic() > self._next_line:
            self._log(note)

    def _log(self, note: str = "", ended: bool = False) -> None:
        now, self._logged = time.monotonic(), self._done
        self._next_line = now + _LINE_SECONDS
        since, start = self._first or (self._start, self._begun)
        if ended and now <= since:  # nothing but the first advance is known
            since, start = self._start, self._begun
        text = ""
        if self._done > start:
            rate = (self._done - start) / max(now - since, 1e-9)
            left = _duration((self._total - self._done) / rate)
            text = f", {rate:.2f} {self._unit}/s, {left} left"
        _LOG.info("%s: %d/%d%s %s", self._title, self._done, self._total, text, note)


def _duration(seconds: float) -> str:
    """As 40 s, 12 min or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
