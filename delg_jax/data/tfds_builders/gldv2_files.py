"""The published files of Google Landmarks v2, in a folder or fetched by TFDS: csv and tars.

Tars are verified by MD5 and read member by member, never unpacked to disk.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import logging
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from delg_jax.data import published
from delg_jax.data.images import BadImageError
from delg_jax.data.tfds_builders import tables
from delg_jax.data.tfds_builders.manifest import Archive, Source
from delg_jax.data.tfds_builders.records import Item
from delg_jax.data.tfds_builders.relabelling import read
from delg_jax.errors import UserError

TABLES = {
    "train": ("train.csv",),
    "train_clean": ("train.csv", "train_clean.csv"),
    "index": ("index.csv", "index_image_to_landmark.csv"),
    "test": ("test.csv", "recognition_solution_v2.1.csv", "retrieval_solution_v2.1.csv"),
}
IGNORED = "Ignored"  # usage of a test image that counts for nothing
# Answers that are left beside the records, by task
RETRIEVAL, RECOGNITION = "retrieval.csv", "recognition.csv"
_COLUMNS = {RETRIEVAL: ("id", "usage", "images"), RECOGNITION: ("id", "usage", "landmarks")}

Tables = Mapping[str, pathlib.Path]
Entry = tuple[int, Mapping[str, Any]]  # label and further features of an image


def train_images(paths: Tables) -> Iterator[tuple[str, str]]:
    """Id and landmark of each training image."""
    for row in tables.read(paths["train.csv"], ("id", "landmark_id"), key="id"):
        yield row.name("id"), str(row.integer("landmark_id"))


def clean_images(paths: Tables) -> Iterator[tuple[str, str]]:
    """Id and landmark of each image of the cleaned training set.

    Raises:
      UserError: if an image occurs twice or is not in train.csv.
    """
    left = dict(train_images(paths))
    for row in tables.read(paths["train_clean.csv"], ("landmark_id", "images"), key="landmark_id"):
        landmark = str(row.integer("landmark_id"))
        for name in row.names("images"):
            if left.pop(name, None) is None:
                raise row.error(f"the image {name} is not in train.csv or occurs twice")
            yield name, landmark


@functools.lru_cache(maxsize=2)  # the shards of a split ask one after the other
def train_entries(relabelling: pathlib.Path, part: str) -> Mapping[str, Entry]:
    """Label by id of the images of `train` or `validation`."""
    images = read(relabelling)
    return {image.name: (image.label, {}) for image in images if image.split == part}


@functools.lru_cache(maxsize=1)
def index_entries(index: pathlib.Path, landmarks: pathlib.Path) -> Mapping[str, Entry]:
    """Landmark by id of the index images, -1 where none is published."""
    rows = tables.read(landmarks, ("id", "landmark_id"), key="id")
    known = {row.name("id"): row.integer("landmark_id") for row in rows}
    names = (row.name("id") for row in tables.read(index, ("id",), key="id"))
    return {name: (known.get(name, -1), {}) for name in names}


@functools.lru_cache(maxsize=1)
def test_entries(
    test: pathlib.Path, recognition: pathlib.Path, retrieval: pathlib.Path
) -> Mapping[str, Entry]:
    """Answers by id of the test images; the label is -1, an image can show several landmarks."""
    entries: dict[str, tuple[int, dict[str, Any]]] = {}
    for row in tables.read(test, ("id",), key="id"):
        features: dict[str, Any] = {"landmarks": [], "recognition_usage": IGNORED}
        entries[row.name("id")] = (-1, {**features, "relevant": [], "retrieval_usage": IGNORED})
    for row in tables.read(recognition, ("id", "landmarks", "Usage"), key="id"):
        features = _of(entries, row)
        features["recognition_usage"] = row.word("Usage")
        landmarks = row.text("landmarks").split()
        if not all(text.isascii() and text.isdigit() for text in landmarks):
            raise row.error(f"landmarks must be whole numbers, not {row.text('landmarks')!r}")
        features["landmarks"] = list(dict.fromkeys(int(text) for text in landmarks))
    for row in tables.read(retrieval, ("id", "images", "Usage"), key="id"):
        features = _of(entries, row)
        features["retrieval_usage"] = row.word("Usage")
        if row.word("Usage") != IGNORED:
            features["relevant"] = list(dict.fromkeys(row.names("images")))
    return entries


def _of(entries: dict[str, tuple[int, dict[str, Any]]], row: tables.Row) -> dict[str, Any]:
    if row.name("id") not in entries:
        raise row.error(f"the image {row.text('id')} is not in test.csv")
    return entries[row.word("id")][1]


def write_answers(folder: pathlib.Path, entries: Mapping[str, Entry]) -> None:
    """Writes `retrieval.csv`, the index images of each query, and `recognition.csv`, landmarks."""
    for file, task, answer in (
        (RETRIEVAL, "retrieval", "relevant"),
        (RECOGNITION, "recognition", "landmarks"),
    ):
        rows = (
            (name, features[f"{task}_usage"], " ".join(map(str, features[answer])))
            for name, (_, features) in entries.items()
            if features[f"{task}_usage"] != IGNORED
        )
        tables.write(folder / file, _COLUMNS[file], rows)


def read_retrieval(folder: pathlib.Path, usage: str) -> dict[str, list[str]]:
    """Index images by query, of the queries of a usage (`Public` or `Private`)."""
    rows = tables.read(folder / RETRIEVAL, _COLUMNS[RETRIEVAL], key="id")
    asked = (row for row in rows if row.text("usage") == usage)
    return {row.text("id"): list(dict.fromkeys(row.names("images"))) for row in asked}


def read_recognition(folder: pathlib.Path, usage: str) -> dict[str, list[int]]:
    """Landmarks by query, none where none is shown, of the queries of a usage."""
    rows = tables.read(folder / RECOGNITION, _COLUMNS[RECOGNITION], key="id")
    return {
        row.text("id"): [int(landmark) for landmark in row.text("landmarks").split()]
        for row in rows
        if row.text("usage") == usage
    }


URL, TARS = published.GLDV2_URL, published.GLDV2_TARS


def in_folder(root: pathlib.Path, part: str, tables: tuple[str, ...]) -> Source:
    """Finds the files in a folder.

    Args:
      root: with the csv files, and a folder `part` of tars `images_*.tar` (beside them, if they
        are to be checked, `md5.images_*.txt`) or of unpacked images.
      part: `train`, `index` or `test`.
      tables: names of the csv files.

    Returns:
      The files; without archives if the images are unpacked.

    Raises:
      UserError: if there is no folder of that part.
    """
    images = root / part
    if not images.is_dir():
        raise UserError("config.data.root", str(root), f"must have a folder {part}/")
    archives = {}
    for tar in sorted(images.glob("images_*.tar")):
        sums = tar.with_name(f"md5.{tar.stem}.txt")
        archives[f"{part}/{tar.name}"] = (tar, sums if sums.is_file() else None)
    return Source(root, {name: root / name for name in tables}, archives)


def download(
    dl_manager: tfds.download.DownloadManager, part: str, tables: tuple[str, ...]
) -> Source:
    """Fetches the files, each once, into TFDS's folder of downloads.

    Args:
      dl_manager: of TFDS.
      part: `train` (500 tars), `index` (100) or `test` (20).
      tables: names of the csv files.

    Returns:
      The files, all in archives.

    Raises:
      UserError: if a file cannot be fetched.
    """
    names = [f"images_{number:03d}" for number in range(TARS[part])]
    urls = {
        "tables": {name: f"{URL}/{published.gldv2_table(name)}" for name in tables},
        "tars": {name: f"{URL}/{part}/{name}.tar" for name in names},
        "sums": {name: f"{URL}/md5sum/{part}/md5.{name}.txt" for name in names},
    }
    try:
        found = dl_manager.download(urls)
    except (OSError, tfds.download.DownloadError) as error:
        rule = f"names no folder, and the files could not be fetched: {error}"
        raise UserError("config.data.root", "", rule) from error
    archives = {
        f"{part}/{name}.tar": (pathlib.Path(found["tars"][name]), pathlib.Path(found["sums"][name]))
        for name in names
    }
    lists = {name: pathlib.Path(path) for name, path in found["tables"].items()}
    return Source(None, lists, archives)


_LOG = logging.getLogger(__name__)
_CHECKERS = 8  # archives hashed at a time; hashing releases the interpreter lock
_LARGEST_MEMBER = 2**28  # bytes
_MD5 = re.compile(r"\b[0-9a-fA-F]{32}\b")


def verify_archives(archives: Iterable[Archive]) -> None:
    """Compares archives with their published MD5 sums.

    Args:
      archives: tars, each with the file of its sum; those without one are logged, not checked.

    Raises:
      UserError: for an archive that differs, or a file without a sum.
    """
    archives = list(archives)
    pairs = [(tar, sums) for tar, sums in archives if sums is not None]
    if len(pairs) < len(archives):
        _LOG.warning("%d archives have no MD5 file and are not checked", len(archives) - len(pairs))
    if pairs:
        _LOG.info("checking the MD5 sums of %d archives", len(pairs))
    with concurrent.futures.ThreadPoolExecutor(_CHECKERS) as pool:
        list(pool.map(_verify_one, *zip(*pairs, strict=True)) if pairs else ())


def _verify_one(tar: pathlib.Path, sums: pathlib.Path) -> None:
    expected = _MD5.search(sums.read_text(encoding="utf-8", errors="replace"))
    if expected is None:
        raise UserError("MD5 file", str(sums), "must contain an MD5 sum, 32 hexadecimal digits")
    with tar.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if expected.group().lower() != found:
        rule = f"is damaged: its MD5 sum is {found}, not {expected.group().lower()}"
        raise UserError("archive", str(tar), f"{rule}; delete it and download it again")


@dataclasses.dataclass(frozen=True)
class TarItems:
    """The images of a split in one archive.

    Attributes:
      path: of the archive.
      entries: returns label and features by id; members with other ids are ignored.
    """

    path: pathlib.Path
    entries: Callable[[], Mapping[str, Entry]]

    def __call__(self) -> Iterator[Item]:
        """Yields items in the order of the archive; use each before asking for the next.

        A member that is a link, or whose path leads outside the archive, is an item without an
        image; so is the rest of a truncated archive.
        """
        entries = self.entries()
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    fault = _fault(member)
                    name = pathlib.PurePosixPath(member.name).stem
                    if fault:
                        yield Item(f"{self.path.name}:{member.name}", {"image": _refuse(fault)})
                    elif name in entries:
                        label, features = entries[name]
                        load = functools.partial(_read, archive, member)
                        yield Item(name, {"image": load}, label, features)
        except tarfile.TarError as error:
            yield Item(self.path.name, {"image": _refuse(f"is truncated or damaged: {error}")})


def _fault(member: tarfile.TarInfo) -> str:
    """Why a member is not read; empty if it is."""
    path = pathlib.PurePosixPath(member.name)
    if not member.isreg():
        return "is a link or a device, not a file"
    if path.is_absolute() or ".." in path.parts:
        return "has a path outside the archive"
    if member.size > _LARGEST_MEMBER:
        return f"has {member.size} bytes, more than {_LARGEST_MEMBER}"
    return ""


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        if file is None:  # a link or a device, which `_fault` refuses
            raise BadImageError("is not a file")
        return file.read()
    except tarfile.TarError as error:
        raise BadImageError(f"the archive is truncated or damaged: {error}") from error


def _refuse(reason: str) -> Callable[[], bytes]:
    def load() -> bytes:
        raise BadImageError(reason)

    return load
