"""What a benchmark times: our implementation, our variants of it and the peers.

The roofline is the least time that the work can take on this device, from its measured rates.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.benchmarks.harness import time_in_turn
from delg_jax.errors import UserError


class Unavailable(UserError):
    """A peer that cannot run here, most often because its package is not installed."""


def import_peer(module: str, package: str) -> Any:
    """Imports a peer's module.

    Args:
      module: to import.
      package: that contains it, named in the error.

    Returns:
      The module.

    Raises:
      Unavailable: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule = "is not installed: pip install 'delg_jax[bench]'"
        raise Unavailable("package", package, rule) from error


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to do the work of a comparison.

    Attributes:
      name: shown in the table.
      call: does the work and returns NumPy arrays or numbers, so that nothing is still running.
      units: how many units of the `Comparison` a call does.
      facts: numbers about the result that belong beside its time.
    """

    name: str
    call: Callable[[], Any]
    units: float
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """The least that any program must do for one unit.

    Attributes:
      operations: floating-point operations; a multiplication and an addition are two.
      bytes: read or written at least once.
      dtype: of the operations.
    """

    operations: float = 0.0
    bytes: float = 0.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Implementations of the same work on the same inputs.

    Attributes:
      unit: what times are counted per.
      ours: our implementation.
      peers: by name, makes the implementation of another library, or raises `Unavailable`.
      variants: other implementations of ours.
      work: the least work for a unit; None if unknown.
    """

    unit: str
    ours: Implementation
    peers: Mapping[str, Callable[[], Implementation]]
    variants: tuple[Implementation, ...] = ()
    work: Work | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A benchmark and its sizes.

    Attributes:
      compare: makes the comparison from a random generator and the numbers of a size.
      sizes: by name of a size, its numbers.
    """

    compare: Callable[..., Comparison]
    sizes: Mapping[str, Mapping[str, Any]]


# Of the square matrices that are multiplied, and of the float32 array that is copied; the second
# value is for accelerators
_CPU_SIDE, _ACCELERATOR_SIDE = 1024, 8192
_CPU_LENGTH, _ACCELERATOR_LENGTH = 1 << 26, 1 << 30
_REPEATS = 5


def least_time(work: Work, seconds: float) -> dict[str, float]:
    """Compares a time with the least possible.

    Args:
      work: for a unit.
      seconds: that a unit took.

    Returns:
      `operations`, `bytes`, `products_per_second` (operations of a large matrix product, only if
      operations are counted), `bytes_per_second` (read and written by a large copy, only if bytes
      are counted), `seconds` (the least, set by the slower of the two rates) and `share` (the least
      over the time taken).
    """
    found = {"operations": work.operations, "bytes": work.bytes}
    times = [0.0]
    if work.operations:
        found["products_per_second"] = product_rate(work.dtype)
        times.append(work.operations / found["products_per_second"])
    if work.bytes:
        found["bytes_per_second"] = bandwidth()
        times.append(work.bytes / found["bytes_per_second"])
    return {**found, "seconds": max(times), "share": max(times) / seconds}


@functools.cache
def product_rate(dtype: str) -> float:
    """Operations per second of a large matrix product on the device."""
    side = _CPU_SIDE if _is_cpu() else _ACCELERATOR_SIDE
    keys = jax.random.split(jax.random.key(0))
    first, second = (jax.random.normal(key, (side, side), dtype) for key in keys)
    product = jax.jit(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    return 2.0 * side**3 / _fastest(lambda: product(first, second).block_until_ready())


@functools.cache
def bandwidth() -> float:
    """Bytes per second that a large copy reads and writes on the device."""
    if _is_cpu():
        source = np.ones(_CPU_LENGTH, np.float32)
        target = np.empty_like(source)
        return 2.0 * source.nbytes / _fastest(lambda: np.copyto(target, source))
    values = jnp.ones(_ACCELERATOR_LENGTH, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    return 2.0 * values.nbytes / _fastest(lambda: copy(values).block_until_ready())


def _is_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _fastest(call: Callable[[], object]) -> float:
    return time_in_turn([call], _REPEATS)[0].fastest
