"""Networks with random variables, and without the seconds that compiling them well takes."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests import tiny


@pytest.fixture(scope="session")
def random_variables() -> Callable[..., dict]:
    """A function (module, *inputs, method=None) -> variables, the same in every call."""

    def draw(module: nn.Module, *inputs: np.ndarray, method: str | None = None) -> dict:
        key = jax.random.key(0)
        return tiny.fill(jax.eval_shape(lambda: module.init(key, *inputs, method=method)))

    return draw


@pytest.fixture(scope="session")
def quick_jit() -> Callable[[Callable], Callable]:
    """`jax.jit` that compiles several times as fast, to slower code."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
