"""The layout of Revisited Oxford and Paris: `ROOT/jpg/*.jpg` and `ROOT/gnd_*.json` or `.pkl`.

Names of the ground truth stand without the ending `.jpg`; one that is there is understood, as are
files of other endings.
"""

import pathlib

import ml_collections
import numpy as np

from delg_jax import file_names
from delg_jax.data import ground_truth
from delg_jax.data.folder import existing_root
from delg_jax.data.image_files import SUFFIXES
from delg_jax.data.sources import FileSource, RetrievalData
from delg_jax.errors import UserError

_MOST_LISTED = 5


def retrieval(data: ml_collections.ConfigDict) -> RetrievalData:
    """Opens the database and the queries under `config.data.root`.

    Args:
      data: the `config.data` tree.

    Returns:
      RetrievalData.

    Raises:
      UserError: if the folder or the ground truth is absent or wrong, or names absent images.
    """
    root = existing_root(data)
    path = _ground_truth_file(root, data.ground_truth)
    content = ground_truth.read(path)
    database, queries = (
        _source(path, root / "jpg", content[name]) for name in ("imlist", "qimlist")
    )
    return RetrievalData(database, queries, content["gnd"])


def find(folder: pathlib.Path, name: str) -> str:
    """The file of an image that a ground truth names, with or without its ending.

    Args:
      folder: of the images.
      name: relative to it. Another ending, or the same in capitals, is tried if there is no file
        of this name.

    Returns:
      Relative to the folder; "" if there is none.
    """
    stem, dot, ending = name.rpartition(".")
    named = dot and f".{ending.lower()}" in SUFFIXES
    candidates = [f"{name}.jpg", *([name] if named else [])]
    endings = [form for suffix in SUFFIXES for form in (suffix, suffix.upper())]
    candidates += [f"{stem if named else name}{form}" for form in endings]
    return next((file for file in candidates if file_names.to_path(folder, file).is_file()), "")


def _source(path: pathlib.Path, folder: pathlib.Path, names: list[str]) -> FileSource:
    """The images that a list of the ground truth names."""
    files = [find(folder, name) for name in names]
    absent = [name for name, file in zip(names, files, strict=True) if not file]
    if absent:
        more = " ..." if len(absent) > _MOST_LISTED else ""
        rule = f"names {len(absent)} images that jpg/ lacks: {', '.join(absent[:_MOST_LISTED])}"
        raise UserError("ground truth", str(path), rule + more)
    suffix = ".jpg" if all(file.endswith(".jpg") for file in files) else ""
    kept = [file.removesuffix(suffix) for file in files]
    return FileSource(folder, kept, np.full(len(kept), -1, np.int64), suffix)


def _ground_truth_file(root: pathlib.Path, name: str) -> pathlib.Path:
    if name:
        return root / name
    found = sorted(p for p in root.glob("gnd_*") if p.suffix in (".json", ".pkl"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        rule = f"must have one gnd_*.json or gnd_*.pkl (found {names}), or set ground_truth"
        raise UserError("config.data.root", str(root), rule)
    return found[0]
