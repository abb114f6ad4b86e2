"""The fingerprint of a run's images, so that it never resumes on others."""

import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from delg_jax import json_files
from delg_jax.data.sources import FileSource, ImageSource, TrainingData
from delg_jax.errors import UserError
from delg_jax.workdir import write_json

FILE = "images.json"
_SOURCE = json_files.fields(
    {"images": json_files.count, "labelled": json_files.text, "contents": json_files.text}
)
_CHECK = json_files.fields({"classes": json_files.text, "train": _SOURCE, "validation": _SOURCE})


def fingerprint(data: TrainingData) -> dict[str, Any]:
    """Counts and digests of the training and validation images, wherever they are stored.

    There is one digest of names and labels, and one of contents. The latter covers the digests that
    a prepared data set stores, or the sizes of files (a copy has other times), or else is empty.
    """
    sources = {"train": data.train, "validation": data.validation}
    return {
        "classes": _digest(data.classes),
        **{name: _of_source(source) for name, source in sources.items()},
    }


def require_same(folder: pathlib.Path, found: dict[str, Any]) -> None:
    """Stores the fingerprint of a run's images in its folder, or compares it with the stored one.

    Args:
      folder: of the run.
      found: `fingerprint` of the current images.

    Raises:
      UserError: if the run was trained on other images.
    """
    remedy = "--overwrite deletes the run, or use another --workdir"
    before = json_files.read(folder / FILE, "images of a run", _CHECK, remedy)
    if before is None:  # a new run, or one of an earlier version
        write_json(folder / FILE, found)
        return
    changes = [
        f"{name}: {change}"
        for name in ("train", "validation")
        if (change := _change(before[name], found[name]))
    ]
    if before["classes"] != found["classes"]:
        changes.append("other classes")
    if changes:
        rule = f"was trained on other images ({'; '.join(changes)}); {remedy}"
        raise UserError("workdir", str(folder), rule)


def _change(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before["images"] != now["images"]:
        return f"{before['images']} -> {now['images']} images"
    if before["labelled"] != now["labelled"]:
        return "other names or labels"
    contents = {before["contents"], now["contents"]}
    return "other contents" if len(contents) > 1 and "" not in contents else ""


def _of_source(source: ImageSource) -> dict[str, Any]:
    labelled = zip(source.names, source.labels.tolist(), strict=True)
    return {
        "images": len(source),
        "labelled": _digest(map(list, labelled)),
        "contents": _contents(source),
    }


def _contents(source: ImageSource) -> str:
    if isinstance(source, FileSource):
        return _digest(source.stamps(range(len(source)))[:, 0].tolist())
    stored = getattr(source, "digests", [])
    return _digest(stored) if stored and all(stored) else ""


def _digest(values: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for value in values:
        found.update(json.dumps(value).encode() + b"\n")
    return found.hexdigest()
