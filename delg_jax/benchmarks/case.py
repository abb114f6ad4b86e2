"""What a benchmark times: ours, our variants and the peers."""

import dataclasses
import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any

from delg_jax.errors import UserError


class Unavailable(UserError):
    """A peer that cannot run here, most often because its package is not installed."""


def installed(module: str, package: str) -> types.ModuleType:
    """Imports what a peer needs.

    Args:
      module: to import.
      package: that brings it.

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
class Contender:
    """One of those that are timed.

    Attributes:
      name: what it is.
      call: does the work and returns NumPy arrays or numbers, so that nothing is left to be done.
      units: how much work a call does, in the unit of its `Comparison`.
      facts: numbers about its result that belong beside its time.
    """

    name: str
    call: Callable[[], Any]
    units: float
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """What any program must do for one unit.

    Attributes:
      operations: of floating point, two for a multiplication and an addition.
      bytes: read or written at least once.
      dtype: of the operations.
    """

    operations: float = 0.0
    bytes: float = 0.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours and the others, on the same inputs.

    Attributes:
      unit: what times are counted per.
      ours: our kernel.
      peers: the others by name, made when they are wanted; they raise `Unavailable`.
      variants: other ways of ours.
      work: the least that has to be done, if that is known.
    """

    unit: str
    ours: Contender
    peers: Mapping[str, Callable[[], Contender]]
    variants: tuple[Contender, ...] = ()
    work: Work | None = None


@dataclasses.dataclass(frozen=True)
class Bench:
    """A benchmark by its sizes.

    Attributes:
      compare: from a generator of random numbers and the numbers of a size to what is timed.
      sizes: numbers by the name of the size.
    """

    compare: Callable[..., Comparison]
    sizes: Mapping[str, Mapping[str, Any]]
