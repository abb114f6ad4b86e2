import io
import logging

import pytest

from delg_jax import progress
from delg_jax.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, in seconds."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def lines(monkeypatch, caplog):
    """Log lines where there is no terminal."""
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, logger="delg_jax")
    return lambda: [record.getMessage().strip() for record in caplog.records]


def test_without_terminal_the_end_is_one_line_with_rate(clock, lines):
    with Progress("extract", 8) as bar:
        clock.now = 2.0
        bar.advance(3)
        bar.advance()
    assert lines() == ["extract: 0/8", "extract: 4/8, 2.00 image/s, 2 s left"]


def test_a_line_comes_soon_and_then_every_half_minute_at_most(clock, lines):
    with Progress("train", 100, unit="step") as bar:
        for clock.now in range(1, 101):
            bar.advance(note=f"loss {clock.now}")
    assert [line.split(",")[0] for line in lines()] == [
        f"train: {count}/100" for count in (0, 6, 37, 68, 99, 100)
    ]
    assert lines()[2] == "train: 37/100, 1.00 step/s, 63 s left loss 37"


def test_earlier_work_does_not_count_for_the_rate(clock, lines):
    with Progress("extract", 100, done=90) as bar:
        clock.now = 5.0
        bar.advance(5)
    assert lines() == ["extract: 90/100", "extract: 95/100, 1.00 image/s, 5 s left"]


def test_the_first_item_which_compiles_does_not_count_for_the_rate(clock, lines):
    with Progress("extract", 1000) as bar:
        clock.now = 60.0
        bar.advance()
        for clock.now in range(61, 91):
            bar.advance()
    assert lines()[1] == "extract: 1/1000"
    assert lines()[-1] == "extract: 31/1000, 1.00 image/s, 16 min left"


def test_nothing_to_do_says_nothing(clock, lines):
    with Progress("extract", 0):
        pass
    with Progress("extract", 3, done=3):
        pass
    assert lines() == []


def test_on_a_terminal_there_is_a_bar_and_no_line(monkeypatch, lines):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with Progress("extract", 2, done=1) as bar:
        bar.advance(note="loss 0.5")
    assert lines() == []
    assert "extract" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    assert "loss 0.5" in terminal.getvalue()
