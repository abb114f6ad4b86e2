import concurrent.futures
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.training import health
from delg_jax.training.health import InputWait

SCALE = 45.0  # gamma of ArcFace before the first step


def diagnosis(labels=(), heads="joint", learns_attention=True):
    """Accuracy at chance is reported after 10 steps."""
    return health.Diagnosis(heads, learns_attention, SCALE, np.asarray(labels, int), 10)


def names(signs):
    return set(signs)


def test_tensors_are_watched_in_the_order_of_a_step():
    metrics = {"loss": 1, "global_loss": 2, "scale": 3, "attention_loss": 4}
    watched = health.watched(metrics, {"b": {"k": 5}, "a": 6}, {"params": {"a": 7}})
    assert list(watched.items()) == [
        ("attention_loss", 4),
        ("global_loss", 2),
        ("loss", 1),
        ("gradient a", 6),
        ("gradient b/k", 5),
        ("variable params/a", 7),
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_the_first_tensor_with_a_bad_value_is_found(bad, position):
    tensors = {str(i): np.zeros((2, 3), np.float32) for i in range(4)}
    for spoilt in (position, 3):
        tensors[str(spoilt)][1, 2] = bad
    assert int(health.first_nonfinite(tensors)) == position


def test_without_bad_values_none_is_found():
    assert int(health.first_nonfinite({"a": jnp.ones(3), "b": jnp.zeros(())})) == -1


@pytest.mark.parametrize(
    ("scores", "dead"), [((0.2, 0.9), 0), ((0.0, 5e-5), 1), ((0.7, 0.7), 1), ((0.0, 0.5), 0)]
)
def test_zero_or_constant_attention_is_dead(scores, dead):
    record = dict(zip(("attention_min", "attention_max"), scores, strict=True))
    signs = diagnosis().examine(1, record)
    assert names(signs) == ({"warning_dead_attention"} if dead else set())
    assert diagnosis(learns_attention=False).examine(1, record) == {}


@pytest.mark.parametrize(("factor", "bad"), [(0.05, 1), (0.5, 0), (9, 0), (11, 1), (-1, 1)])
def test_a_scale_far_from_its_initial_value_is_reported(factor, bad):
    signs = diagnosis().examine(1, {"scale": factor * SCALE})
    assert names(signs) == ({"warning_scale"} if bad else set())


@pytest.mark.parametrize(
    ("step", "heads", "accuracies", "sign"),
    [
        (9, "joint", (0.1, 0.1), False),
        (10, "joint", (0.1, 0.9), True),
        (10, "joint", (0.9, 0.1), True),
        (10, "joint", (0.9, 0.9), False),
        (10, "global", (0.9, 0.1), False),
        (10, "local", (0.1, 0.9), False),
        (10, "local", (0.9, 0.1), True),
    ],
)
def test_accuracy_at_chance_is_reported_of_heads_that_learn(step, heads, accuracies, sign):
    labels = np.arange(100) % 10
    record = {
        "validation_global_accuracy": accuracies[0],
        "validation_attention_accuracy": accuracies[1],
    }
    signs = diagnosis(labels, heads).examine(step, record)
    assert names(signs) == ({"warning_at_chance"} if sign else set())


def test_each_warning_is_logged_once_and_recorded_each_time(caplog):
    found = diagnosis(np.arange(100) % 10)
    record = {"validation_global_accuracy": 0.1}
    assert [found.examine(step, record) for step in (10, 20)] == [{"warning_at_chance": 1}] * 2
    lines = [r.getMessage() for r in caplog.records if r.name == health.__name__]
    assert len(lines) == 1
    assert "step 10: " in lines[0]
    assert "global 0.1" in lines[0]


def test_chance_level_is_the_majority_class_accuracy_plus_3_sigma():
    assert health.chance_level(np.zeros(0, int)) < 0  # no accuracy is at chance without images
    assert health.chance_level(np.repeat([0, 1], [90, 10])) == pytest.approx(0.9 + 3 * 0.03)
    draws = np.random.default_rng(0).integers(0, 10, (1000, 400))
    labels = np.arange(400) % 10
    assert np.mean((draws == labels[None]).mean(1) > health.chance_level(labels)) < 0.01


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
    monkeypatch.setattr(health, "time", clock)
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
