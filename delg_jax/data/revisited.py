"""The layout of Revisited Oxford and Paris: `ROOT/jpg/*.jpg` and `ROOT/gnd_*.json` or `.pkl`."""

import pathlib

import ml_collections
import numpy as np

from delg_jax import file_names
from delg_jax.data import ground_truth
from delg_jax.data.folder import existing_root
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
    sources = []
    for names in (content["imlist"], content["qimlist"]):
        files = [file_names.to_path(root / "jpg", f"{name}.jpg") for name in names]
        absent = [name for name, file in zip(names, files, strict=True) if not file.is_file()]
        if absent:
            more = " ..." if len(absent) > _MOST_LISTED else ""
            rule = f"names {len(absent)} images that jpg/ lacks: {', '.join(absent[:_MOST_LISTED])}"
            raise UserError("ground truth", str(path), rule + more)
        labels = np.full(len(names), -1, np.int64)
        sources.append(FileSource(root / "jpg", list(names), labels, ".jpg"))
    return RetrievalData(sources[0], sources[1], content["gnd"])


def _ground_truth_file(root: pathlib.Path, name: str) -> pathlib.Path:
    if name:
        return root / name
    found = sorted(p for p in root.glob("gnd_*") if p.suffix in (".json", ".pkl"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        rule = f"must have one gnd_*.json or gnd_*.pkl (found {names}), or set ground_truth"
        raise UserError("config.data.root", str(root), rule)
    return found[0]
