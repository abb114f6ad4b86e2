"""Feature files of the official code, the protocol buffers `.delg_local` and `.delg_global`."""

import functools
import math
import pathlib
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from delg_jax import file_names, workdir
from delg_jax.errors import UserError
from delg_jax.features.formats.image_order import AbsentImageError, best_first, spellings
from delg_jax.features.local_features import LocalFeatures

_PACKAGE = "delg_jax.delf"
# Fields of each message in the order of their numbers: name, type, whether a packed list
_SCHEMA = {
    "Shape": (("dim", "int64", True),),
    "FloatList": (("value", "float", True),),
    "Datum": (("shape", "Shape", False), ("float_list", "FloatList", False)),
    "Feature": (
        ("descriptor", "Datum", False),
        ("x", "float", False),
        ("y", "float", False),
        ("scale", "float", False),
        ("orientation", "float", False),
        ("strength", "float", False),
    ),
    "Features": (("feature", "Feature", True),),
}
_NUMBERS = ("x", "y", "scale", "strength")
LOCAL_SUFFIX, GLOBAL_SUFFIX = ".delg_local", ".delg_global"


def read_local(path: str | pathlib.Path) -> LocalFeatures:
    """Reads a `.delg_local` file.

    Args:
      path: of the file; an empty file holds no features.

    Returns:
      LocalFeatures [K] in the order of the file, which may not be sorted by score; descriptors
      float32, not normalised. The orientation is ignored.

    Raises:
      UserError: if the file is absent, damaged or of another kind.
    """
    features = _parse(path, "Features").feature
    for feature in features:
        if not all(feature.HasField(name) for name in (*_NUMBERS, "descriptor")):
            raise _error(path, f"must give each feature {', '.join(_NUMBERS)} and descriptor")
    descriptors = [_read_datum(path, feature.descriptor) for feature in features]
    widths = sorted({len(descriptor) for descriptor in descriptors})
    if len(widths) > 1:
        raise _error(path, f"must hold descriptors of one length, not of {widths}")
    x, y, scales, scores = (
        _finite(path, name, [getattr(feature, name) for feature in features]) for name in _NUMBERS
    )
    return LocalFeatures(
        locations=np.stack([y, x], axis=1),
        scales=scales,
        scores=scores,
        descriptors=np.stack(descriptors) if descriptors else np.zeros((0, 0), np.float32),
        mask=np.ones(len(features), bool),
    )


def write_local(path: str | pathlib.Path, features: LocalFeatures) -> None:
    """Writes a `.delg_local` file atomically.

    Args:
      path: of the file.
      features: LocalFeatures [K]; masked ones are left out. Orientations are 0.
    """
    message = _messages()["Features"]()
    fields = zip(*(np.asarray(field)[features.mask] for field in features[:4]), strict=True)
    for (y, x), scale, score, descriptor in fields:
        feature = message.feature.add(
            x=float(x), y=float(y), scale=float(scale), orientation=0.0, strength=float(score)
        )
        _fill_datum(feature.descriptor, descriptor)
    _write(path, message)


def read_global(path: str | pathlib.Path) -> np.ndarray:
    """Reads a `.delg_global` file.

    Args:
      path: of the file.

    Returns:
      float32 [D], not normalised.

    Raises:
      UserError: if the file is absent, damaged or of another kind.
    """
    return _read_datum(path, _parse(path, "Datum"))


def write_global(path: str | pathlib.Path, descriptor: np.ndarray) -> None:
    """Writes a `.delg_global` file of a descriptor [D] atomically."""
    message = _messages()["Datum"]()
    _fill_datum(message, descriptor)
    _write(path, message)


@functools.cache
def _messages() -> dict[str, type[Message]]:
    """Message classes of `_SCHEMA`; proto2, so that zeros are written."""
    file = descriptor_pb2.FileDescriptorProto(
        name="delg_jax/delf.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind, is_list) in enumerate(fields, start=1):
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if is_list else field.LABEL_OPTIONAL
            if kind in _SCHEMA:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = field.TYPE_FLOAT if kind == "float" else field.TYPE_INT64
                field.options.packed = is_list
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _SCHEMA}
    return {name: message_factory.GetMessageClass(found[name]) for name in _SCHEMA}


def _parse(path: str | pathlib.Path, kind: str) -> Any:
    message = _messages()[kind]()
    try:
        message.ParseFromString(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise _error(path, "is damaged or not a protocol buffer") from error
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise _error(path, "holds unknown fields")
    return message


def _read_datum(path: str | pathlib.Path, datum: Any) -> np.ndarray:
    values = _finite(path, "descriptor", datum.float_list.value)
    if not len(values):
        raise _error(path, "must hold descriptors as lists of floats")
    if datum.HasField("shape") and math.prod(datum.shape.dim) != len(values):
        rule = f"holds {len(values)} values for a descriptor of shape {list(datum.shape.dim)}"
        raise _error(path, rule)
    return values


def _fill_datum(datum: Any, descriptor: np.ndarray) -> None:
    datum.shape.dim.extend(descriptor.shape)
    datum.float_list.value.extend(np.asarray(descriptor, np.float32).tolist())


def _finite(path: str | pathlib.Path, name: str, values: Any) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise _error(path, f"holds a {name} that is not a finite number")
    return array


def _write(path: str | pathlib.Path, message: Message) -> None:
    with workdir.replacing(pathlib.Path(path)) as temporary:
        temporary.write_bytes(message.SerializeToString(deterministic=True))


def _error(path: str | pathlib.Path, rule: str) -> UserError:
    return UserError("feature file", str(path), rule)


class DelfFolder:
    """Files `NAME.delg_local` and `NAME.delg_global`, whatever image suffix NAME has.

    Args:
      folder: of the files; names with slashes are in subfolders.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def read_local(self, name: str) -> LocalFeatures:
        """LocalFeatures [K] of an image, best first; a UserError if it cannot be read."""
        return best_first(read_local(self._find(name, LOCAL_SUFFIX)))

    def read_global(self, name: str) -> np.ndarray:
        """Global descriptor float32 [D] of an image; a UserError if it cannot be read."""
        return read_global(self._find(name, GLOBAL_SUFFIX))

    def _find(self, name: str, suffix: str) -> pathlib.Path:
        for spelling in spellings(name):
            path = file_names.to_path(self._folder, f"{spelling}{suffix}")
            if path.is_file():
                return path
        raise AbsentImageError("image", name, f"has no {suffix} file in {self._folder}")
