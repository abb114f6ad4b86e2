"""Reads revisited-style ground truth: JSON, or the official pickle without executing anything."""

import io
import json
import pathlib
import pickle
from typing import Any

from delg_jax.errors import UserError

_LISTS = ("easy", "hard", "junk")


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
        content = (
            _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
            if path.suffix == ".pkl"
            else json.loads(data)
        )
    except OSError as error:
        raise UserError("ground truth", str(path), "must be a readable file") from error
    except Exception as error:  # a hostile pickle can raise anything
        raise UserError("ground truth", str(path), f"cannot be read: {error}") from error
    _check(path, content)
    return content


def _check(path: pathlib.Path, content: Any) -> None:
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= set(content):
        raise UserError("ground truth", str(path), "must hold imlist, qimlist and gnd")
    images, queries, entries = content["imlist"], content["qimlist"], content["gnd"]
    if len(queries) != len(entries):
        rule = f"has {len(queries)} queries but {len(entries)} entries in gnd"
        raise UserError("ground truth", str(path), rule)
    for number, entry in enumerate(entries):
        where = f"gnd[{number}]"
        if not isinstance(entry, dict) or not {"bbx", *_LISTS} <= set(entry):
            rule = f"{where} must hold bbx, easy, hard and junk"
            raise UserError("ground truth", str(path), rule)
        if len(entry["bbx"]) != 4:
            raise UserError("ground truth", str(path), f"{where}.bbx must have four numbers")
        for name in _LISTS:
            if any(not 0 <= index < len(images) for index in entry[name]):
                rule = f"{where}.{name} has an index outside imlist (0 to {len(images) - 1})"
                raise UserError("ground truth", str(path), rule)
