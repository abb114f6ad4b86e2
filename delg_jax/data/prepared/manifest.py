"""What a data set was prepared of, kept beside its records.

`manifest.json` has the folder, the lists and archives, what was skipped, the settings, and a digest
of each table beside the records. `source.csv` has a line for each image that is a file.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from delg_jax import workdir
from delg_jax.data.prepared import stamps, tables
from delg_jax.data.prepared.stamps import Stamp
from delg_jax.errors import UserError

FILE, IMAGES = "manifest.json", "source.csv"
COLUMNS = ("path", "size", "time", "digest")
FORMAT = 1

Archive = tuple[pathlib.Path, pathlib.Path | None]  # a tar, and the file with its MD5 sum


@dataclasses.dataclass(frozen=True)
class Source:
    """The published files of a data set.

    Attributes:
      root: folder of the files; None if they were downloaded.
      lists: path of each list by its name, which is its path in `root`.
      archives: tars with their MD5 files, by name.
      images: paths in `root` of the images, where no list names them.
    """

    root: pathlib.Path | None
    lists: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    archives: Mapping[str, Archive] = dataclasses.field(default_factory=dict)
    images: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data set was prepared of.

    Attributes:
      root: resolved folder of the files; "" if they were downloaded.
      settings: of the builder, by name.
      lists: stamp of each list by name.
      archives: stamp of each archive by name.
      skipped: reasons by name of the images that were left out.
      outputs: digest by name of each table beside the records.
    """

    root: str
    settings: Mapping[str, Any]
    lists: Mapping[str, Stamp]
    archives: Mapping[str, Stamp]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)


def begin(source: Source, settings: Mapping[str, Any]) -> Manifest:
    """The manifest of a source that is about to be read: a later change of it will show."""
    lists = {n: stamped(path, whole=True) for n, path in source.lists.items()}
    archives = {name: stamped(tar) for name, (tar, _) in source.archives.items()}
    root = "" if source.root is None else str(source.root.resolve())
    return Manifest(root, settings, lists, archives)


def stamped(path: pathlib.Path, whole: bool = False) -> Stamp:
    """Stamp of a file with its digest."""
    return stamps.stamp(path)._replace(digest=stamps.digest_of_path(path, whole))


def write(
    folder: pathlib.Path,
    begun: Manifest,
    images: Iterable[tuple],
    skipped: Mapping[str, str],
) -> None:
    """Writes both files beside the records, when all other tables are there.

    Args:
      folder: of the records.
      begun: of `begin`.
      images: path in the root, size, time and digest of each image that is a file.
      skipped: reasons by name.
    """
    tables.write(folder / IMAGES, COLUMNS, images)
    outputs = {path.name: _sha256(path) for path in _outputs(folder)}
    whole = dataclasses.replace(begun, skipped=dict(skipped), outputs=outputs)
    content = dataclasses.asdict(whole)
    workdir.write_json(
        folder / FILE, {"format": FORMAT, "sha256": _digest(content), "content": content}
    )


def read(folder: pathlib.Path) -> Manifest | None:
    """Reads a manifest; None if an earlier version prepared the data without one.

    Raises:
      UserError: if it, or a table beside the records, is damaged.
    """
    path = folder / FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        content = stored["content"]
        if stored["format"] != FORMAT or stored["sha256"] != _digest(content):
            raise ValueError("its checksum or format is another")
        content["lists"], content["archives"] = (
            {name: Stamp(*values) for name, values in content[kind].items()}
            for kind in ("lists", "archives")
        )
        found = Manifest(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    for name, expected in found.outputs.items():
        if _sha256(folder / name) != expected:
            raise _damaged(folder / name, "it is not what was written")
    return found


def _outputs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The tables of this package in a folder, which TFDS shares."""
    return sorted([*folder.glob("*.csv"), *folder.glob("ground_truth.json")])


def _damaged(path: pathlib.Path, what: str) -> UserError:
    rule = f"is damaged ({what}); delete the folder {path.parent} to prepare it again"
    return UserError("prepared data", str(path), rule)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: pathlib.Path) -> str:
    """Digest of a whole file; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
