import itertools
import os
import signal
import threading

import jax
import pytest
from jax.experimental import multihost_utils

from delg_jax.training.interruption import Interrupted, StopRequest


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_and_the_handler_restored(number):
    before = signal.getsignal(number)
    with StopRequest(75) as stop:
        assert not stop.arrived()
        send(number)
        assert stop.arrived()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_the_program():
    with StopRequest(75):
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_second_sigterm_changes_nothing():
    with StopRequest(75) as stop:
        send()
        send()
        assert stop.arrived()


def test_where_there_is_nothing_to_save_the_program_ends_at_once():
    with StopRequest(9) as stop, stop.at_once(), pytest.raises(Interrupted) as raised:
        send()
    assert raised.value.code == 9


def test_a_signal_before_the_block_ends_it_too():
    with StopRequest(9) as stop:
        send()
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("the block must not begin")


def test_items_end_with_the_iterator():
    with StopRequest(75) as stop:
        assert list(stop.items(iter("abc"))) == ["a", "b", "c"]
        assert not stop.arrived()


def test_items_end_with_a_request():
    with StopRequest(75) as stop:
        for item in stop.items(itertools.count()):
            if item == 3:
                send()
        assert item == 3


def test_a_request_ends_the_wait_for_an_item():
    def never():
        yield 0
        send()
        threading.Event().wait(60)
        yield 1

    with StopRequest(75) as stop:
        assert list(stop.items(never())) == [0]


def test_an_error_of_the_iterator_is_raised():
    with StopRequest(75) as stop, pytest.raises(ZeroDivisionError):
        list(stop.items(1 / x for x in (1, 0)))


def test_in_another_thread_there_are_no_signals():
    found = []

    def run():
        with StopRequest(75) as stop:
            found.append(stop.arrived())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_processes_agree_on_a_poll(monkeypatch):
    polls = []

    def reached(number):
        polls.append(number)
        return number == 3

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    with StopRequest(75) as stop:
        assert signal.getsignal(signal.SIGTERM) is not stop._record  # jax.distributed handles it
        assert list(stop.items(iter("abcdef"))) == ["a", "b"]
        assert stop.arrived()
    assert polls == [1, 2, 3]


def test_ctrl_c_in_one_of_several_processes_becomes_sigterm(monkeypatch):
    sent = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with StopRequest(75) as stop:
        monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
        with stop.at_once():
            signal.raise_signal(signal.SIGINT)
    assert sent == [(os.getpid(), signal.SIGTERM)]
