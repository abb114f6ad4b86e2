import concurrent.futures
import logging

import pytest

from delg_jax.training import input_wait
from delg_jax.training.input_wait import InputWait


class Clock:
    """Time that passes only when told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Pool:
    """Runs steps that end at a given time."""

    def __init__(self, clock):
        self._clock = clock

    def submit(self, _, end):
        future = concurrent.futures.Future()
        future.done = lambda: end <= self._clock.now
        future.result = lambda: end
        return future

    def shutdown(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(input_wait, "time", clock)
    return clock


def measure(clock, inputs, steps, count=10):
    """The share for batches that come after `inputs` seconds and steps that take `steps`."""

    def slow():
        while True:
            clock.now += inputs
            yield None

    wait = InputWait()
    wait._pool.shutdown()
    wait._pool = Pool(clock)
    free = 0.0
    for number, _ in enumerate(wait.batches(slow())):
        if number == 0:
            wait.restart()
        if number == count:
            break
        free = max(free, clock.now) + steps
        wait.stepped(free)
    return wait.share()


@pytest.mark.parametrize(
    ("inputs", "steps", "expected"),
    [
        (1.0, 3.0, 0.0),  # the step takes longer: nobody waits
        (4.0, 1.0, 0.75),
        (4.0, 0.0, 1.0),
        (2.0, 2.0, 0.0),
    ],
)
def test_the_share_is_that_of_idle_devices(clock, inputs, steps, expected):
    assert measure(clock, inputs, steps) == pytest.approx(expected, abs=1e-6)


def test_a_starving_run_says_so_once(clock, caplog):
    wait = InputWait()
    with caplog.at_level(logging.WARNING), wait:
        for waited in (0.1, 0.5, 0.9):
            wait._waited = waited
            clock.now += 1.0
            assert wait.share() == pytest.approx(waited)
    assert len(caplog.records) == 1
    assert "50 %" in caplog.text
    assert "config.data.workers" in caplog.text


def test_the_end_of_a_real_step_is_noticed():
    with InputWait() as wait:
        wait.stepped({"loss": 1.0})
        wait._step.result(timeout=60)
        assert list(wait.batches(iter([1, 2]))) == [1, 2]
        assert 0 <= wait.share() <= 1
