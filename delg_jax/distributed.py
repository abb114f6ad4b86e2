"""Runs over several processes, through `jax.distributed`.

Processes wait for each other by the coordination service of `jax.distributed`, not by a collective
operation of the devices: that fails if one of them comes half a minute late.
"""

import contextlib
import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, TypeVar

import jax

from delg_jax import clusters
from delg_jax.errors import UserError
from delg_jax.file_names import to_text

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
_CLUSTER_VARIABLE = "DELG_CLUSTER"
_FAILURE = "delg/failure"  # key of the coordination service: why a process failed
_SIGTERM_NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # key that JAX sets when a process gets SIGTERM
_POLL_SECONDS = 1.0  # a wait returns to Python so often, for signals
_WATCH_SECONDS = 2.0
_LINE_SECONDS = 30.0  # between log lines of a wait
_FAILED = 2  # exit status

# Number of the next exchange; all processes take part in the same ones, in the same order
_turns = itertools.count()
_finished: list[int] = []  # exchanges whose keys process 0 has yet to delete
_stop_first: list[Callable[[], object]] = []  # of the blocks of `stopping_first`, inner ones last


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    cluster: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Joins the processes of a run; call it before anything touches a device.

    Arguments that are None are read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID
    and DELG_CLUSTER. What is still missing is taken from the cluster that started this process.
    Processes other than 0 log warnings only.

    Args:
      coordinator: host:port that process 0 listens on.
      num_processes: number of processes.
      process_id: number of this process, from 0.
      cluster: where to look for the other processes, one of `clusters.CLUSTERS`; None and `auto`
        for any, `none` for nowhere.
      environment: environment variables.

    Returns:
      Whether there are several processes.

    Raises:
      UserError: if some but not all are given and there is no cluster, a number is out of range,
        or the processes do not meet.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    values: dict[str, Any] = {
        name: environment.get(variable) if given[name] is None else given[name]
        for name, variable in _VARIABLES.items()
    }
    values = {name: None if value == "" else value for name, value in values.items()}
    if None not in values.values():
        count, number = (_number(name, values[name]) for name in ("num_processes", "process_id"))
        if not 0 <= number < count:
            rule = f"must be from 0 to below --num_processes={count}"
            raise UserError("--process_id", number, rule)
        if count == 1:
            return False
        arguments = {
            "coordinator_address": str(values["coordinator"]),
            "num_processes": count,
            "process_id": number,
            "local_device_ids": clusters.local_devices(environment),
            "cluster_detection_method": "deactivate",  # everything is known
        }
        return _join(f"process {number} of {count}", arguments)
    if cluster is None:
        cluster = environment.get(_CLUSTER_VARIABLE) or "auto"
    found = clusters.find(cluster, environment, values["coordinator"] or "")
    for name in ("num_processes", "process_id"):
        if values[name] is not None:  # a cluster numbers its processes itself
            _require_all(values)
    if found is None and values["coordinator"] is not None:
        _require_all(values)
    if found is None:
        return False
    if found.arguments is None:
        _LOG.info("%s: this is the only process", found.text)
        return False
    return _join(found.text, found.arguments)


def _require_all(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is None:
            rule = f"must be given with the others, by flag or as {_VARIABLES[name]}"
            raise UserError(f"--{name}", value, rule)


def _number(name: str, value: str | int) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise UserError(f"--{name}", value, "must be a whole number") from error


def _join(text: str, arguments: Mapping[str, Any]) -> bool:
    _LOG.info("%s: waiting for the other processes", text)
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        rule = f"found {text}, but the processes did not meet ({reason}); "
        rule += f"{clusters.FLAG}=none runs this one alone"
        raise UserError(clusters.FLAG, "auto", rule) from error
    number, count = shard()
    _LOG.info("process %d of %d, with %d devices", number, count, jax.local_device_count())
    if number:
        logging.getLogger("delg_jax").setLevel(logging.WARNING)
    return count > 1


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    cluster: str | None = None,
    ends_on_sigterm: bool = True,
) -> Iterator[None]:
    """Runs the block in all processes of a job; if it fails in one, the others end as well.

    Args:
      coordinator: as for `initialize`, like the others.
      num_processes: number of processes.
      process_id: number of this process.
      cluster: where to look for the other processes.
      ends_on_sigterm: whether SIGTERM to one process ends all of them. `jax.distributed` only
        records it, for a block that asks.
    """
    if not initialize(coordinator, num_processes, process_id, cluster):
        yield
        return
    if ends_on_sigterm and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    client, ended = _client(), threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(client, ended), daemon=True)
    watch.start()
    try:
        yield
        wait_for_all("the end")  # or JAX would end this process if another takes long
    except BaseException as error:
        # Of this process's own end the others would learn only by a timeout. A status with which
        # it ends in order comes to all
        if isinstance(error, Terminated) or not isinstance(error, SystemExit):
            with contextlib.suppress(RuntimeError):
                text = f"process {shard()[0]} failed: {str(error) or type(error).__name__}"
                client.key_value_set(_FAILURE, text, allow_overwrite=True)
        raise
    finally:
        ended.set()
        watch.join()


class Terminated(SystemExit):  # noqa: N818 - it ends the program, as its base does
    """Ends a process after SIGTERM; its code is the exit status that the signal has by itself."""

    def __str__(self) -> str:
        """Returns the reason."""
        return "it received SIGTERM"


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)


def _end_with_others(client: Any, ended: threading.Event) -> None:
    """Waits until another process fails, and then ends this one."""
    while not ended.wait(_WATCH_SECONDS):
        try:
            text = client.key_value_try_get(_FAILURE)
        except RuntimeError:  # there is none
            continue
        if not ended.wait(_WATCH_SECONDS):  # this process may be about to report the same
            _end(text)


def _end(text: str) -> NoReturn:
    """Ends this process from a thread; its main thread may wait for a device for ever."""
    sys.stderr.write(f"delg: {' '.join(text.split())}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    jax.distributed.shutdown()  # all processes leave together; otherwise JAX aborts the last ones
    os._exit(_FAILED)


def is_first() -> bool:
    """Whether this is process 0, the one that writes."""
    return jax.process_index() == 0


def shard() -> tuple[int, int]:
    """Index of this process, and number of processes."""
    return jax.process_index(), jax.process_count()


@contextlib.contextmanager
def first_before_others(name: str) -> Iterator[None]:
    """Runs the block in the first process, and only then in the others.

    Args:
      name: of the work, the same in all processes.

    Raises:
      UserError: in the others, if the first one failed; with its error if that was a UserError.
      SystemExit: in the others, if the first one raised it, with the same status.
    """
    if jax.process_count() == 1:
        yield
        return
    turn = next(_turns)
    _finished.append(turn)
    key = f"delg/{turn}/first"
    if jax.process_index():
        _raise_again(name, json.loads(_wait_for(key, f"process 0: {name}")))
        yield
        return
    outcome: list[Any] = []
    try:
        with _noticing_sigterm():
            yield
    except UserError as error:
        outcome = [str(error.subject), str(error.value), error.rule]
        raise
    except SystemExit as error:
        outcome = [error.code]
        raise
    except BaseException as error:
        outcome = ["process 0", name, f"failed ({type(error).__name__}); see its log"]
        raise
    finally:
        _client().key_value_set(key, json.dumps([name, outcome]))


@contextlib.contextmanager
def stopping_first(stop: Callable[[], object]) -> Iterator[None]:
    """Lets SIGTERM end what the first process does before the others (`first_before_others`).

    Args:
      stop: called in a thread of the first process, once any process has received SIGTERM; makes
        its main thread raise `SystemExit`, whose status then comes to all.
    """
    _stop_first.append(stop)
    try:
        yield
    finally:
        _stop_first.pop()


@contextlib.contextmanager
def _noticing_sigterm() -> Iterator[None]:
    """Calls the innermost `stop` if a process receives SIGTERM, which `jax.distributed` records."""
    if not _stop_first:
        yield
        return
    stop, client, ended = _stop_first[-1], _client(), threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            with contextlib.suppress(RuntimeError):  # there is none
                client.key_value_try_get(_SIGTERM_NOTICE)
                stop()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _raise_again(name: str, posted: list[Any]) -> None:
    """Raises what the first process raised."""
    found, outcome = posted
    _require_same(name, [found])
    if len(outcome) == 1:
        raise SystemExit(*outcome)
    if outcome:
        raise UserError(*outcome)


@contextlib.contextmanager
def shared_out(
    name: str, missing: Sequence[T], finish: Callable[[], object]
) -> Iterator[Sequence[T]]:
    """Yields this process's share of some work; the first process finishes it after all are done.

    Args:
      name: of the work, the same in all processes.
      missing: items of the work, the same in all processes.
      finish: called by the first process once all have left the block.
    """
    number, count = shard()
    wait_for_all(f"{name}: all have listed the missing items")
    yield missing[number::count]
    wait_for_all(f"{name}: all have written")
    if is_first():
        finish()
    wait_for_all(f"{name}: finished")


def agree(yes: bool, name: str) -> bool:
    """Whether all processes pass True; every process must call it with the same name."""
    return all(gather(name, bool(yes)))


def wait_for_all(name: str) -> None:
    """Blocks until every process has called it with this name."""
    gather(name, None)


def gather(name: str, value: T) -> list[T]:
    """Exchanges a value of each process; every process must call it with the same name.

    Args:
      name: of what is waited for.
      value: a JSON value.

    Returns:
      The values of processes 0, 1, and so on.

    Raises:
      RuntimeError: if processes call it with other names.
    """
    number, count = jax.process_index(), jax.process_count()
    if count == 1:
        return [value]
    client, turn = _client(), next(_turns)
    key = f"delg/{turn}"
    client.key_value_set(f"{key}/{number}", json.dumps([name, value]))
    if number == 0:
        posted = [_wait_for(f"{key}/{other}", f"process {other}: {name}") for other in range(count)]
        for before in _finished:  # all have read those, or they would not have posted to this one
            client.key_value_delete(f"delg/{before}")
        _finished.clear()
        client.key_value_set(f"{key}/all", f"[{','.join(posted)}]")
    _finished.append(turn)
    found = json.loads(_wait_for(f"{key}/all", f"all processes: {name}"))
    _require_same(name, [other for other, _ in found])
    return [content for _, content in found]


def _require_same(name: str, others: Sequence[str]) -> None:
    if set(others) != {name}:
        raise RuntimeError(f"this process waits for {name!r}, others for {sorted(set(others))}")


def _wait_for(key: str, what: str) -> str:
    """The value of a key of the coordination service, once it is there.

    Args:
      key: to wait for.
      what: is waited for; logged again and again.
    """
    client, start = _client(), time.monotonic()
    line = _LINE_SECONDS
    while True:
        try:
            return client.blocking_key_value_get(key, int(1000 * _POLL_SECONDS))
        except RuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        seconds = time.monotonic() - start
        if seconds >= line:
            # A warning, because processes other than 0 show nothing less
            _LOG.warning("waiting for %s (%.0f s)", to_text(what), seconds)
            line += _LINE_SECONDS


def _client() -> Any:
    """Client of the coordination service, which JAX itself has no public name for."""
    import orbax.checkpoint as ocp  # slow to import, and one process needs none

    return ocp.multihost.get_jax_distributed_client()
