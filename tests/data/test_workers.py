import os

import pytest

from delg_jax.data.workers import AUTO, worker_count


@pytest.mark.parametrize("workers", [0, 1, 100])
def test_a_number_is_taken_as_it_is(workers):
    assert worker_count(workers) == workers


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (7, 7), (200, 32)])
def test_otherwise_there_is_one_on_each_core_that_the_process_may_use(monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_count(AUTO) == expected
