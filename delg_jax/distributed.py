"""Runs over several processes, through `jax.distributed`."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from delg_jax.errors import UserError

T = TypeVar("T")

_VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Joins the processes of a run; call it before anything touches a device.

    Arguments that are None are read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. Processes other than 0 log warnings only.

    Args:
      coordinator: host:port that process 0 listens on.
      num_processes: number of processes.
      process_id: number of this process, from 0.
      environment: environment variables.

    Returns:
      Whether there are several processes.

    Raises:
      UserError: if some but not all are given, or a number is out of range.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    values: dict[str, Any] = {
        name: environment.get(variable) if given[name] is None else given[name]
        for name, variable in _VARIABLES.items()
    }
    if all(value in (None, "") for value in values.values()):
        return False
    for name, value in values.items():
        if value in (None, ""):
            rule = f"must be given with the others, by flag or as {_VARIABLES[name]}"
            raise UserError(f"--{name}", value, rule)
    count, number = (_number(name, values[name]) for name in ("num_processes", "process_id"))
    if not 0 <= number < count:
        raise UserError("--process_id", number, f"must be from 0 to below --num_processes={count}")
    if count == 1:
        return False
    jax.distributed.initialize(str(values["coordinator"]), count, number)
    if number:
        logging.getLogger("delg_jax").setLevel(logging.WARNING)
    return True


def _number(name: str, value: str | int) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise UserError(f"--{name}", value, "must be a whole number") from error


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
      UserError: in the others, if the first one failed.
    """
    if not is_first():
        if not agree(True):
            raise UserError("process 0", name, "failed; see its log")
        yield
        return
    try:
        yield
    except BaseException:
        agree(False)
        raise
    agree(True)


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


def agree(yes: bool) -> bool:
    """Whether all processes pass True; every process must call it."""
    if jax.process_count() == 1:
        return yes
    return bool(np.all(multihost_utils.process_allgather(np.array(yes))))


def wait_for_all(name: str) -> None:
    """Blocks until every process has called it with this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
