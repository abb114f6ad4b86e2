"""Reads revisited-style ground truth: JSON, or the official pickle without executing anything."""

import io
import pathlib
import pickle
import pickletools
import sys
from typing import Any

from delg_jax import text_files
from delg_jax.errors import UserError

_LISTS = ("easy", "hard", "junk")
_LONGEST_REASON = 200  # characters; texts of decoders can quote the file


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles plain Python types; a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}; only plain types are read")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refers to data outside the file")


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads and checks a ground truth file.

    Args:
      path: `.json`, or `.pkl` as published with Revisited Oxford and Paris.

    Returns:
      A dict of `imlist` and `qimlist` (names) and `gnd` (for each query `bbx`, `easy`, `hard`,
      `junk`).

    Raises:
      UserError: if the file is absent, damaged, of another layout, or contains code.
    """
    try:
        data = path.read_bytes()
        content = _unpickle(data) if path.suffix == ".pkl" else text_files.parse_json(data)
    except OSError as error:
        raise UserError("ground truth", str(path), "must be a readable file") from error
    except Exception as error:  # a hostile pickle can raise anything
        rule = f"cannot be read: {' '.join(str(error).split())[:_LONGEST_REASON]}"
        raise UserError("ground truth", str(path), rule) from error
    _check(path, content)
    return content


def _unpickle(data: bytes) -> Any:
    """The content of a pickle; a few bytes of one may ask for all memory, which is refused."""
    for operation, argument, _ in pickletools.genops(data):  # raises for what is cut off
        if operation.name.endswith("PUT") and argument > len(data):
            raise pickle.UnpicklingError(f"refers to object {argument} of {len(data)} bytes")
    return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()


def _check(path: pathlib.Path, content: Any) -> None:
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= set(content):
        raise UserError("ground truth", str(path), "must hold imlist, qimlist and gnd")
    for name in ("imlist", "qimlist"):
        if not content[name] or not _is_list_of(content[name], str):
            raise UserError("ground truth", str(path), f"{name} must be a list of names")
        for image in content[name]:
            place = pathlib.PurePosixPath(image)
            if place.is_absolute() or ".." in place.parts or "\0" in image:
                rule = f"{name} must name images inside the folder, not {image!r}"
                raise UserError("ground truth", str(path), rule)
    queries, entries = content["qimlist"], content["gnd"]
    if not isinstance(entries, list) or len(queries) != len(entries):
        found = len(entries) if isinstance(entries, list) else "no"
        rule = f"has {len(queries)} queries but {found} entries in gnd"
        raise UserError("ground truth", str(path), rule)
    for number, entry in enumerate(entries):
        fault = _fault(entry, len(content["imlist"]))
        if fault:
            raise UserError("ground truth", str(path), f"gnd[{number}]{fault}")


def _fault(entry: Any, images: int) -> str:
    """What is wrong with the entry of one query; empty if nothing is."""
    if not isinstance(entry, dict) or not {"bbx", *_LISTS} <= set(entry):
        return " must hold bbx, easy, hard and junk"
    if not _is_list_of(entry["bbx"], int | float) or len(entry["bbx"]) != 4:
        return ".bbx must have four numbers"
    if not all(abs(side) <= sys.float_info.max for side in entry["bbx"]):
        return ".bbx must be finite"
    for name in _LISTS:
        if not _is_list_of(entry[name], int):
            return f".{name} must be a list of whole numbers"
        if any(not 0 <= index < images for index in entry[name]):
            return f".{name} has an index outside imlist (0 to {images - 1})"
    return ""


def _is_list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )
