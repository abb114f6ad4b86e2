"""What a benchmark times: our implementation, our variants of it and the peers."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

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
