"""Reads pickles of plain Python types and NumPy arrays; nothing that a pickle names is executed."""

import io
import pickle
import pickletools
from typing import Any

import numpy as np

_KINDS = "biufUS"  # of arrays: truth values, numbers and text


class _Kind:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self._order = state[1]

    def dtype(self) -> np.dtype | None:
        """What it stands for; None for objects."""
        if not isinstance(self._code, str) or not isinstance(self._order, str):
            raise pickle.UnpicklingError("has an array of no known dtype")
        if self._code in ("O", "O8", "O4"):
            return None
        kind = np.dtype(self._code)
        if kind.kind not in _KINDS or not kind.itemsize:
            raise pickle.UnpicklingError(f"has an array of {kind}; numbers and names are read")
        return kind if self._order == "|" else kind.newbyteorder(self._order)  # type: ignore[arg-type]  # NumPy checks the order


class _Array:
    """Stands for `numpy.ndarray`, and for the functions that make one."""

    def __init__(self, *_: Any) -> None:
        self.values: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self.values = _values(data, kind, shape, fortran)


def _from_buffer(data: Any, kind: Any, shape: Any, order: str) -> _Array:
    """Stands for `numpy.core.numeric._frombuffer`, of protocol 5."""
    array = _Array()
    array.values = _values(data, kind, shape, order == "F")
    return array


def _scalar(kind: Any, data: Any) -> Any:
    """Stands for `numpy.core.multiarray.scalar`."""
    return _values(data, kind, (1,), False)[0]


def _no_bytes() -> bytes:
    """Stands for `bytes`, which Python 3 writes empty ones by in protocols 0 to 2."""
    return b""


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """Stands for `_codecs.encode`, which Python 3 writes other bytes by."""
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError("has bytes in an encoding that is not latin1")
    return text.encode("latin1")


def _values(data: Any, kind: Any, shape: Any, fortran: bool) -> list:
    """The values of an array as lists."""
    if not isinstance(kind, _Kind) or not all(type(side) is int for side in shape):
        raise pickle.UnpicklingError("has an array that is damaged")
    dtype = kind.dtype()
    if dtype is None:
        if len(shape) != 1 or not isinstance(data, list) or len(data) != shape[0]:
            raise pickle.UnpicklingError("has an array of objects that is not one list")
        return data
    if isinstance(data, str):  # as Python 2 wrote bytes
        data = data.encode("latin1")
    values = np.frombuffer(data, dtype)
    return values.reshape(shape, order="F" if fortran else "C").tolist()


_NUMPY = {
    "_reconstruct": _Array,
    "ndarray": _Array,
    "dtype": _Kind,
    "scalar": _scalar,
    "_frombuffer": _from_buffer,
}
# Values of a pickle by its bytes; parts that it holds once and shows several times count again
_MOST_REPEATED, _LEAST_VALUES = 4, 10_000
_MODULES = ("numpy", "numpy.core.multiarray", "numpy.core.numeric")
_BYTES = {("_codecs", "encode"): _bytes, ("__builtin__", "bytes"): _no_bytes}


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles plain types; NumPy's are replaced by what stands for them, all else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.replace("numpy._core", "numpy.core") in _MODULES and name in _NUMPY:
            return _NUMPY[name]
        if (module, name) in _BYTES:
            return _BYTES[module, name]
        raise pickle.UnpicklingError(f"names {module}.{name}; only plain types are read")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refers to data outside the file")


def read(data: bytes) -> Any:
    """The content of a pickle.

    Args:
      data: of the file, of any protocol, from Python 2 or 3.

    Returns:
      Dicts, lists, tuples, numbers and texts; arrays of NumPy as lists.

    Raises:
      Exception: of any kind, for what is damaged, asks for more memory than the file has bytes, or
        names a class or function.
    """
    for operation, argument, _ in pickletools.genops(data):  # raises for what is cut off
        if operation.name.endswith("PUT") and (argument or 0) > len(data):
            raise pickle.UnpicklingError(f"refers to object {argument} of {len(data)} bytes")
    content = _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    return _Plain(_MOST_REPEATED * len(data) + _LEAST_VALUES).of(content)


class _Plain:
    """Makes values of arrays, and counts them: parts that occur again and again can be billions.

    Args:
      limit: most values.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def of(self, value: Any) -> Any:
        """The value with arrays as lists."""
        self._left -= 1
        if self._left < 0:
            raise pickle.UnpicklingError("repeats its parts too often")
        if isinstance(value, _Array):
            return self.of(value.values)
        if isinstance(value, dict):
            return {name: self.of(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.of, value))
        if isinstance(value, bytes):
            return value.decode("latin1")
        return value
