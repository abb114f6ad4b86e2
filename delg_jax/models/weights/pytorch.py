"""PyTorch files: state dicts, alone or inside a training checkpoint; read without PyTorch.

A file holds a pickle of the objects, in which each tensor refers to a storage, and the bytes of the
storages: since PyTorch 1.6 in an archive, before that one after another.
"""

import collections
import io
import mmap
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from delg_jax.models.weights.refusal import refusal, require_size

# Keys under which training programs store the state dict
_CONTAINERS = ("model_state", "state_dict", "model_state_dict", "model", "net")
_PARALLEL = "module."  # prefix that DataParallel adds
_MAGIC = 0x1950A86A20F9469CFC6C  # what files in the legacy format begin with
_ARCHIVE = b"PK\x03\x04"
_LENGTH = 8  # bytes before each storage of the legacy format: its number of elements

_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "UntypedStorage": np.uint8,
}
_DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}


class _Forbidden(Exception):
    """A pickle names a class or function that is not one of a tensor's."""


class _Storage(NamedTuple):
    """A storage in the file: its key, and the type and number of its elements."""

    key: str
    dtype: np.dtype
    elements: int


class _Tensor(NamedTuple):
    """A view of a storage; `start` and `strides` count elements of type `dtype`."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self, contents: Callable[[_Storage], bytes]) -> np.ndarray:
        """The values, copied; raises for a view that leaves its storage."""
        numbers = [self.start, *self.shape, *self.strides]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise pickle.UnpicklingError("has a tensor of no valid shape")
        last = self.start + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        values = np.frombuffer(contents(self.storage), self.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        if last >= len(values):
            raise pickle.UnpicklingError("has a tensor that is larger than its data")
        steps = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.start :], self.shape, steps).copy()


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file without executing code in it.

    Args:
      path: the file, in PyTorch's zip or legacy format.

    Returns:
      Arrays by name.

    Raises:
      UserError: if it holds objects other than tensors, or no table of tensors.
      Exception: of any kind, if it is damaged.
    """
    try:
        with open(path, "rb") as file:
            archived = file.read(len(_ARCHIVE)) == _ARCHIVE
        content, contents = _read_archive(path) if archived else _read_legacy(path)
    except _Forbidden as error:
        rule = f"must hold tensors alone; it holds code or other objects ({error}), and was not "
        raise refusal(path, f"{rule}executed") from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__.lstrip("_")
        raise refusal(path, f"must hold tensors by name, not one {kind}")
    tensors = {
        str(name): value
        for name, value in _state_dict(content).items()
        if isinstance(value, _Tensor)
    }
    if not tensors:
        places = ", ".join(_CONTAINERS)
        raise refusal(path, f"must hold tensors by name, at the top or in one of {places}")
    prefix = _PARALLEL if all(name.startswith(_PARALLEL) for name in tensors) else ""
    return {n.removeprefix(prefix): tensor.array(contents) for n, tensor in tensors.items()}


def _read_archive(path: str) -> tuple[Any, Callable[[_Storage], bytes]]:
    """The objects in an archive, and a function from a storage to its bytes."""
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: info for info in archive.infolist()}
        (table,) = [name for name in files if name.split("/")[1:] == ["data.pkl"]]
        folder = table.removesuffix("data.pkl")
        for info in files.values():
            require_size(path, info.filename, info.file_size)
        content = _unpickle(io.BytesIO(archive.read(table)), files[table].file_size)
        if f"{folder}byteorder" in files and archive.read(f"{folder}byteorder") != b"little":
            raise pickle.UnpicklingError("is of a big-endian machine")

    def contents(storage: _Storage) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{folder}data/{storage.key}")

    return content, contents


def _read_legacy(path: str) -> tuple[Any, Callable[[_Storage], bytes]]:
    """As `_read_archive`, for a file in the format before PyTorch 1.6."""
    with open(path, "rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    used: dict[str, _Storage] = {}
    if _unpickle(whole, len(whole)) != _MAGIC:
        raise pickle.UnpicklingError("does not begin as one")
    _unpickle(whole, len(whole))  # the version of the protocol
    machine = _unpickle(whole, len(whole))
    if machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("is of a big-endian machine")
    content = _unpickle(whole, len(whole), used)
    places = {}
    keys = _unpickle(whole, len(whole), used)
    position = whole.tell()
    for key in keys:
        storage, position = used[str(key)], position + _LENGTH
        places[storage.key] = position, position + storage.elements * storage.dtype.itemsize
        position = places[storage.key][1]
    if position > len(whole):
        raise pickle.UnpicklingError("ends before its data")

    def contents(storage: _Storage) -> bytes:
        start, end = places[storage.key]
        return whole[start:end]

    return content, contents


def _unpickle(file: Any, size: int, used: dict[str, _Storage] | None = None) -> Any:
    """Reads one pickle and leaves the file behind it; storages that it refers to go to `used`."""
    start = file.tell()
    for operation, argument, _ in pickletools.genops(file):  # raises for what is cut off
        if operation.name.endswith("PUT") and (argument or 0) > size:
            raise pickle.UnpicklingError(f"refers to object {argument} of {size} bytes")
    file.seek(start)
    return _Unpickler(file, used).load()


class _Unpickler(pickle.Unpickler):
    """Unpickles plain types and tensors; all else is refused, and nothing is executed."""

    def __init__(self, file: Any, used: dict[str, _Storage] | None) -> None:
        super().__init__(file, encoding="utf-8")
        self._used = {} if used is None else used

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise _Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        if pid[0] != "storage":
            raise _Forbidden(str(pid[0]))
        _, dtype, key, _, count, *_ = pid
        if not isinstance(dtype, np.dtype) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("has a storage of no known type")
        return self._used.setdefault(str(key), _Storage(str(key), dtype, count))


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`."""
    return _Tensor(storage, start, tuple(shape), tuple(strides), storage.dtype)


def _typed_tensor(
    storage: Any, start: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> _Tensor:
    """Stands for `torch._utils._rebuild_tensor_v3`, for types that have no storage of their own."""
    return _Tensor(storage, start, tuple(shape), tuple(strides), dtype)


def _parameter(data: Any, *_: Any) -> Any:
    """Stands for `torch._utils._rebuild_parameter`."""
    return data


def _text(*parts: Any) -> str:
    """Stands for what is neither a tensor nor executed, such as `torch.device`."""
    return repr(parts)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "Counter"): collections.Counter,
    ("torch", "Size"): tuple,
    ("torch", "device"): _text,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("_codecs", "encode"): _text,
}


def _state_dict(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The innermost container of tensors."""
    for name in _CONTAINERS:
        if isinstance(content.get(name), Mapping):
            return _state_dict(content[name])
    return content
