"""The least time that work takes on this device, by its measured rates."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.benchmarks.case import Work

_SIDES = {"cpu": 1024}  # of the matrices whose product is taken
_OTHER_SIDE = 8192
_WORDS = {"cpu": 1 << 26}  # of float32 that are copied
_OTHER_WORDS = 1 << 30
_CALLS = 5


def floor(work: Work, seconds: float) -> dict[str, float]:
    """Compares a time with the least possible.

    Args:
      work: of a unit.
      seconds: that a unit took.

    Returns:
      `operations`, `bytes`, `products_per_second` (operations of a large matrix product, only where
      operations are counted), `bytes_per_second` (read and written by a large copy), `seconds` at
      these rates, of the slower of the two, and its `share` of the time taken.
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
    """Operations a second of a large matrix product of the device."""
    side = _SIDES.get(jax.default_backend(), _OTHER_SIDE)
    keys = jax.random.split(jax.random.key(0))
    first, second = (jax.random.normal(key, (side, side), dtype) for key in keys)
    product = jax.jit(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    return 2.0 * side**3 / _fastest(lambda: product(first, second).block_until_ready())


@functools.cache
def bandwidth() -> float:
    """Bytes a second that a large copy reads and writes on the device."""
    words = _WORDS.get(jax.default_backend(), _OTHER_WORDS)
    if jax.default_backend() == "cpu":
        source, target = np.ones(words, np.float32), np.empty(words, np.float32)
        return 2.0 * source.nbytes / _fastest(lambda: np.copyto(target, source))
    source = jnp.ones(words, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    return 2.0 * source.nbytes / _fastest(lambda: copy(source).block_until_ready())


def _fastest(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
