"""What a benchmark times: ours and its peer."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Contender:
    """One of the two that are timed.

    Attributes:
      name: what it is.
      call: does the work and returns NumPy arrays or numbers, so that nothing is left to be done.
      units: how much work a call does, in the unit of its `Pair`.
    """

    name: str
    call: Callable[[], Any]
    units: int


@dataclasses.dataclass(frozen=True)
class Pair:
    """Ours and its peer, on the same inputs.

    Attributes:
      unit: what times are counted per.
      ours: our kernel.
      peer: what it is compared with.
      operations: floating-point operations that a unit takes, if they are compared with those that
        the device can do.
      dtype: of these operations.
    """

    unit: str
    ours: Contender
    peer: Contender
    operations: float | None = None
    dtype: str = "float32"
