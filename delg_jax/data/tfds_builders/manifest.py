"""What a data set was made from: the published files, and the manifest that records them.

Two files lie beside the records. `manifest.json` has the folder, the lists and archives, what was
skipped, the settings, and a digest of each table beside the records. `source.csv` has a line for
each image that is a file. `differences` compares them with the published files as they are now.
"""

import concurrent.futures
import csv
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from delg_jax import file_names, file_stamps, json_files, workdir
from delg_jax.data.image_files import SUFFIXES
from delg_jax.data.images import BadImageError
from delg_jax.data.tfds_builders import tables
from delg_jax.errors import UserError
from delg_jax.file_stamps import Stamp, digest_of_file, stamp, stamp_with_digest

FILE, IMAGES = "manifest.json", "source.csv"
COLUMNS = ("path", "size", "time", "digest")  # of `source.csv`
CONTENTS = 2000  # images read at most for comparison, spread evenly over those with a new time
_READERS = 8  # threads; stat and hashing release the interpreter lock
_ROWS = 4096  # images that a thread looks up at a time
_SHOWN = 3  # differing files that are named

_LOG = logging.getLogger(__name__)

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

    @property
    def folder(self) -> pathlib.Path:
        """`root`, of files that were not downloaded; a ValueError of others."""
        if self.root is None:
            raise ValueError("`root` (=None) must be a folder: the files were downloaded")
        return self.root


def by_id(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Path of a Google Landmarks image: `a/b/c/abc….jpg` by its first characters, or `abc….jpg`.

    Args:
      folder: of the images of a split.
      name: id of the image, at least three characters.
    """
    nested, flat = folder.joinpath(*name[:3], f"{name}.jpg"), folder / f"{name}.jpg"
    return flat if flat.is_file() and not nested.is_file() else nested


def inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Path of a file given relative to a folder.

    Args:
      folder: that the file must lie in.
      name: relative path; `.jpg` is added if it has no ending of an image.

    Raises:
      BadImageError: if the name is absolute or leads upwards.
    """
    relative = pathlib.PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise BadImageError("must be a path inside the folder")
    full = name if relative.suffix.lower() in SUFFIXES else f"{name}.jpg"
    return file_names.to_path(folder, full)


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is a file; can be pickled.

    Attributes:
      root: folder of the data set.
      folder: of the images, relative to `root`; "" if they lie in it.
      name: of the image.
      find: `by_id` or `inside`.
    """

    root: pathlib.Path
    folder: str
    name: str
    find: Callable[[pathlib.Path, str], pathlib.Path]

    def path(self) -> pathlib.Path:
        """Its path; a BadImageError if that is outside the folder."""
        return self.find(self.root / self.folder, self.name)

    def __call__(self) -> bytes:
        """The encoded bytes; an OSError if there is no such file."""
        return self.path().read_bytes()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data set was made from.

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
    """The manifest of a source, taken before it is read so that any later change shows."""
    lists = {n: stamp_with_digest(path, whole=True) for n, path in source.lists.items()}
    archives = {name: stamp_with_digest(tar) for name, (tar, _) in source.archives.items()}
    root = "" if source.root is None else str(source.root.resolve())
    return Manifest(root, settings, lists, archives)


def write(
    folder: pathlib.Path,
    begun: Manifest,
    images: Iterable[tuple],
    skipped: Mapping[str, str],
) -> None:
    """Writes both files beside the records, after all other tables.

    Args:
      folder: of the records.
      begun: of `begin`.
      images: path in the root, size, time and digest of each image that is a file.
      skipped: reasons by name.
    """
    tables.write(folder / IMAGES, COLUMNS, images)
    outputs = {path.name: digest_of_file(path, whole=True) for path in _outputs(folder)}
    complete = dataclasses.replace(begun, skipped=dict(skipped), outputs=outputs)
    workdir.write_json(folder / FILE, dataclasses.asdict(complete))


def read(folder: pathlib.Path) -> Manifest | None:
    """Reads a manifest; None if an earlier version made the data without one.

    Raises:
      UserError: if it, or a table beside the records, is damaged.
    """
    remedy = f"delete the folder {folder} to prepare it again"
    content = json_files.read(folder / FILE, "prepared data", _MANIFEST, remedy)
    if content is None:
        return None
    for kind in ("lists", "archives"):
        content[kind] = {name: Stamp(*values) for name, values in content[kind].items()}
    found = Manifest(**content)
    for name, expected in found.outputs.items():
        if digest_of_file(folder / name, whole=True) != expected:
            rule = f"is damaged (it is not what was written); {remedy}"
            raise UserError("prepared data", str(folder / name), rule)
    return found


def _check_stamp(value: Any, where: str) -> None:
    whole = isinstance(value, list) and [type(part) for part in value] == [int, int, str]
    json_files.require(whole, where, "must be a size, a time and a digest")


_MANIFEST = json_files.fields(
    {
        "root": json_files.text,
        "settings": json_files.each(json_files.anything),
        "lists": json_files.each(_check_stamp),
        "archives": json_files.each(_check_stamp),
        "skipped": json_files.each(json_files.text),
        "outputs": json_files.each(json_files.text),
    }
)


def _outputs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The tables of this package in a folder, which TFDS shares."""
    return sorted([*folder.glob("*.csv"), *folder.glob("ground_truth.json")])


class _Image(NamedTuple):
    """A line of `source.csv`."""

    path: str
    stamp: Stamp


def differences(folder: pathlib.Path, found: Manifest, source: Source) -> list[str]:
    """How the published files differ from those that the records were made from.

    Args:
      folder: of the records.
      found: the manifest in it.
      source: the files now; they may have moved to another folder.

    Returns:
      A text for each kind of difference, with the first files; empty if there is none.
    """
    tars = {name: tar for name, (tar, _) in source.archives.items()}
    changed = [
        *_changed(found.lists, source.lists, whole=True),
        *_changed(found.archives, tars, whole=False),
    ]
    texts = changed[:_SHOWN]
    if len(changed) > _SHOWN:
        texts.append(f"{len(changed) - _SHOWN} more files differ")
    # A changed list names other images, so comparing the old ones would only confuse
    return texts or _changed_images(folder, source)


def _changed(
    before: Mapping[str, Stamp], now: Mapping[str, pathlib.Path], whole: bool
) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if name not in before:
            yield f"{name} is new"
        elif text := file_stamps.difference(before[name], now.get(name), whole):
            yield f"{name} {text}"


def _changed_images(folder: pathlib.Path, source: Source) -> list[str]:
    root = source.root
    if root is None:
        return []
    new = set(source.images or ())
    absent: list[str] = []
    other: list[str] = []
    retimed: list[_Image] = []
    count = 0
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        rows = _images(folder)
        while images := list(itertools.islice(rows, _ROWS * _READERS)):
            chunks = [images[i : i + _ROWS] for i in range(0, len(images), _ROWS)]
            stamps = pool.map(_stamps, itertools.repeat(root), chunks)
            for image, now in zip(images, itertools.chain.from_iterable(stamps), strict=True):
                count += 1
                new.discard(image.path)
                if now == image.stamp[:2]:
                    continue
                if now[0] < 0:
                    absent.append(image.path)
                elif now[0] != image.stamp.size:
                    other.append(image.path)
                else:
                    retimed.append(image)
        other += _with_other_content(root, retimed, pool)
    return [
        f"{len(paths)} of {count} images {verb} (first {min(paths)})"
        for verb, paths in (("are new", new), ("are absent", absent), ("have changed", other))
        if paths
    ]


def _images(folder: pathlib.Path) -> Iterator[_Image]:
    with (folder / IMAGES).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for path, size, time, digest in rows:
            yield _Image(path, Stamp(int(size), int(time), digest))


def _stamps(root: pathlib.Path, images: Iterable[_Image]) -> list[tuple[int, int]]:
    """Current size and time of each image."""
    return [stamp(_path(root, image.path))[:2] for image in images]


def _path(root: pathlib.Path, name: str) -> pathlib.Path:
    """Path of an image of `source.csv`; a plain name needs no look at the file system."""
    plain = name.isascii() and "\\" not in name
    return root / name if plain else file_names.to_path(root, name)


def _with_other_content(
    root: pathlib.Path, images: list[_Image], pool: concurrent.futures.Executor
) -> list[str]:
    """Paths of the images, of unchanged size, whose content has changed."""
    step = max(len(images) / CONTENTS, 1)
    drawn = [images[int(n * step)] for n in range(min(len(images), CONTENTS))]
    digests = pool.map(lambda image: digest_of_file(_path(root, image.path)), drawn)
    pairs = zip(drawn, digests, strict=True)
    other = [image.path for image, digest in pairs if digest != image.stamp.digest]
    if len(images) > len(drawn) and not other:
        text = "%s: %d images have a new modification time; %d of them were read and are unchanged"
        _LOG.info(text, file_names.to_text(str(root)), len(images), len(drawn))
    return other
