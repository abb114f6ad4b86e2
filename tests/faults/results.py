"""Compares workdirs after a restart, and finds damaged files in them."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from delg_jax import array_files
from delg_jax.features.storage.chunked_array import ChunkedArray

# Keys of JSON files that hold times and memory
_MEASURED = (
    "seconds",
    "milliseconds_per_query",
    "megabytes",
    "step_seconds",
    "input_wait_share",
    "images_per_second",
    "device_memory_bytes",
    "checksum",  # of a record
)
_LOGS = ("run.log", "sweep.md")  # for people; the table of the sweep has its times


def remove(workdir: Path, part: str) -> None:
    """Deletes a part of a workdir; `*` is everything."""
    for path in workdir.glob(part):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fingerprint(workdir: Path, parts: Iterable[str]) -> dict[str, str]:
    """Digests by path of what was computed.

    Times are left out. Of checkpoints, the last counts: its arrays, and where the input stands.

    Args:
      workdir: of a verb that has ended well.
      parts: files and folders in it; `*` is everything.
    """
    found = {}
    for part in parts:
        for path in _files(workdir, part):
            name = path.relative_to(workdir).as_posix()
            content = _content(path)
            if path.suffix == ".html":  # shows where the workdir lies
                content = content.replace(str(workdir).encode(), b"")
            found[name] = hashlib.sha256(content).hexdigest()
        for steps in _checkpoints(workdir, part):
            last = max(steps.iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
            found[last.relative_to(workdir).as_posix()] = _checkpoint(last)
    return found


def not_whole(workdir: Path) -> list[str]:
    """Files and checkpoints below `workdir` that have a final name and cannot be read."""
    found = []
    for path in _files(workdir, "*"):
        try:
            if path.suffix in (".json", ".npz", ".jsonl"):
                _content(path)
            if path.name == "zarr.json":
                _read_chunks(path.parent)
        except Exception as error:
            found.append(f"{path.relative_to(workdir)} ({error})")
    for steps in _checkpoints(workdir, "*"):
        for step in (path for path in steps.iterdir() if path.name.isdigit()):
            try:
                _checkpoint(step)
            except Exception as error:
                found.append(f"{step.relative_to(workdir)} ({error})")
    return found


def _files(workdir: Path, part: str) -> Iterator[Path]:
    """Files in a part but checkpoints, logs, locks and what has a temporary name."""
    paths = workdir.glob(part)
    for path in sorted(p for top in paths for p in ([top] if top.is_file() else top.rglob("*"))):
        names = path.relative_to(workdir).parts
        temporary = any(name.startswith(".") or name.endswith("__lock") for name in names)
        inside_checkpoint = "checkpoints" in names[:-1] and names[-1] != "config.json"
        if path.is_file() and not temporary and not inside_checkpoint and names[-1] not in _LOGS:
            yield path


def _checkpoints(workdir: Path, part: str) -> list[Path]:
    paths = workdir.glob(part)
    folders = [p for top in paths if top.is_dir() for p in (top, *top.rglob("checkpoints"))]
    return sorted({path for path in folders if path.name == "checkpoints"})


def _content(path: Path) -> bytes:
    """Bytes of a file, without times."""
    if path.suffix == ".json":
        return json.dumps(_computed(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        whole = [line for line in lines if line.endswith("}")]  # a kill may leave half a line
        return json.dumps([_computed(json.loads(line)) for line in whole]).encode()
    if path.suffix == ".npz":
        arrays = array_files.read_arrays(path)
        return b"".join(name.encode() + array.tobytes() for name, array in arrays.items())
    return path.read_bytes()


def _computed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _computed(v) for name, v in value.items() if name not in _MEASURED}
    return [_computed(child) for child in value] if isinstance(value, list) else value


def _checkpoint(step: Path) -> str:
    """Digest of the arrays of a checkpoint, its input and its configuration."""
    found = hashlib.sha256(_content_of_meta(step))
    for item in ("variables", "optimizer"):
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.restore((step / item).resolve())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()


def _content_of_meta(step: Path) -> bytes:
    return json.dumps(_computed(json.loads((step / "meta" / "metadata").read_text()))).encode()


def _read_chunks(folder: Path) -> None:
    """Reads the chunks of an array that are there, by their checksums."""
    array = ChunkedArray(folder)
    rows, size = array.shape[0], array.chunk_rows
    for number, start in enumerate(range(0, rows, size)):
        if array.chunk_path(number).is_file():
            array.read(slice(start, min(start + size, rows)))
