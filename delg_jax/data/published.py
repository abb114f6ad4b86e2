"""The published data sets of the papers' tables: their files, and downloading them."""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence

from delg_jax import downloads, locks
from delg_jax.errors import UserError, require_choice
from delg_jax.progress import Progress

FLAT, TREE = "flat", "tree"  # how an archive is unpacked: without its folders, or with them
_UNPACKING = ".unpacking"  # folder of archives of which others lack
_MEGA = 10**6
_SUM = re.compile(r"\b(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{32})\b")  # SHA-256 or MD5

GLDV2_URL = "https://s3.amazonaws.com/google-landmark"
GLDV2_TARS = {"train": 500, "index": 100, "test": 20}
_GLDV2_MEGABYTES = {"train": 1000, "index": 850, "test": 500}  # of a tar, as its page says
_GLDV2_TABLES = {
    "train": ("train.csv", "train_clean.csv"),
    "index": ("index.csv", "index_image_to_landmark.csv"),
    "test": ("test.csv", "recognition_solution_v2.1.csv", "retrieval_solution_v2.1.csv"),
}
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_R1M = "http://ptak.felk.cvut.cz/revisitop/revisitop1m"
_R1M_PARTS = 100
_ILIAS = "https://vrg.fel.cvut.cz/ilias_data"
_ILIAS_LISTS = (
    *("image_query_ids.txt", "text_query_ids.txt", "positive_ids.txt"),
    *("distractor_ids.txt.gz", "mini_ilias_yfcc100m_ids.txt"),
)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file of a data set.

    Attributes:
      url: where it is.
      path: in the folder of the data set; of an archive that is unpacked, the folder of its images.
      megabytes: about, where a page names it; 0 where none does.
      sums: path of the file of the same data set that holds its MD5 sum or SHA-256, alone or on
        the line that ends with its name; empty if none.
      unpack: `flat`, `tree`, or empty for a file that stays as it is.
    """

    url: str
    path: str
    megabytes: int = 0
    sums: str = ""
    unpack: str = ""

    @property
    def name(self) -> str:
        """Name of the file on the server."""
        return self.url.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class PublishedData:
    """A data set as its owners publish it.

    Attributes:
      about: what it is, in a few words.
      folder: for `config.data.root` or `config.data.distractors`, in the folder of all data sets.
      licence: as its owners name it, or where they do.
      files: that make it up.
      page: for people, where a program cannot download it; `files` is then empty.
    """

    about: str
    folder: str
    licence: str
    files: tuple[PublishedFile, ...] = ()
    page: str = ""


def gldv2_table(name: str) -> str:
    """Path of a table of Google Landmarks v2 on its server: the answers have their own folder."""
    return f"{'ground_truth' if 'solution' in name else 'metadata'}/{name}"


def _gldv2(*parts: str) -> tuple[PublishedFile, ...]:
    files = []
    for part in parts:
        for name in _GLDV2_TABLES[part]:
            files.append(PublishedFile(f"{GLDV2_URL}/{gldv2_table(name)}", name))
        for number in range(GLDV2_TARS[part]):
            name = f"images_{number:03d}"
            sums = f"{part}/md5.{name}.txt"
            files.append(PublishedFile(f"{GLDV2_URL}/md5sum/{sums}", sums))
            tar = f"{part}/{name}.tar"
            files.append(PublishedFile(f"{GLDV2_URL}/{tar}", tar, _GLDV2_MEGABYTES[part], sums))
    return tuple(files)


def _revisited(name: str, *archives: PublishedFile) -> tuple[PublishedFile, ...]:
    truth = f"gnd_{name}.pkl"
    return (PublishedFile(f"{_REVISITED}/{name}/{truth}", truth), *archives)


_GLDV2_LICENCE = "annotations CC BY 4.0; images CC BY (train) or CC0 (index, test)"
_SEE_PAGE = "photographs of Flickr, for research; see https://www.robots.ox.ac.uk/~vgg/data"
PUBLISHED: dict[str, PublishedData] = {
    "roxford5k": PublishedData(
        "Revisited Oxford: 5,063 photographs and ground truth",
        "roxford5k",
        _SEE_PAGE,
        _revisited(
            "roxford5k",
            PublishedFile(f"{_OXFORD}/oxbuildings/oxbuild_images-v1.tgz", "jpg", 1938, unpack=FLAT),
        ),
    ),
    "rparis6k": PublishedData(
        "Revisited Paris: 6,392 photographs and ground truth",
        "rparis6k",
        _SEE_PAGE,
        _revisited(
            "rparis6k",
            PublishedFile(f"{_OXFORD}/parisbuildings/paris_1-v1.tgz", "jpg", 1270, unpack=FLAT),
            PublishedFile(f"{_OXFORD}/parisbuildings/paris_2-v1.tgz", "jpg", unpack=FLAT),
        ),
    ),
    "revisitop1m": PublishedData(
        "R1M: 1,001,001 distractors, in 100 parts",
        "revisitop1m",
        "photographs of Flickr, for research; see http://cmp.felk.cvut.cz/revisitop",
        (
            PublishedFile(f"{_R1M}/revisitop1m.txt", "revisitop1m.txt"),
            *(
                PublishedFile(f"{_R1M}/jpg/revisitop1m.{part}.tar.gz", "jpg", unpack=TREE)
                for part in range(1, _R1M_PARTS + 1)
            ),
        ),
    ),
    "gldv1": PublishedData(
        "Google Landmarks v1, to train on",
        "gldv1",
        "see the page",
        page="https://www.kaggle.com/c/landmark-recognition-challenge",
    ),
    "gldv2_train": PublishedData(
        "Google Landmarks v2, to train on and to recognise by; with the clean list",
        "gldv2",
        _GLDV2_LICENCE,
        _gldv2("train"),
    ),
    "gldv2_index": PublishedData(
        "Google Landmarks v2, index of retrieval", "gldv2", _GLDV2_LICENCE, _gldv2("index")
    ),
    "gldv2_test": PublishedData(
        "Google Landmarks v2, queries and answers", "gldv2", _GLDV2_LICENCE, _gldv2("test")
    ),
    "ilias": PublishedData(
        "ILIAS: 1,232 queries and 4,715 positives of 1,000 objects, and all lists of ids",
        "ilias",
        "the authors' photographs CC BY 4.0, others as their pages say; see "
        "https://github.com/ilias-vrg/ilias/tree/main/download",
        (
            PublishedFile(f"{_ILIAS}/checksums.txt", "checksums.txt"),
            *(
                PublishedFile(f"{_ILIAS}/image_ids/{name}", f"image_ids/{name}")
                for name in _ILIAS_LISTS
            ),
            PublishedFile(
                f"{_ILIAS}/ilias_core.tar", "ilias_core", sums="checksums.txt", unpack=TREE
            ),
        ),
    ),
    "ilias_distractors": PublishedData(
        "ILIAS: 100M distractors of YFCC100M in 1,000 parts, 6.3 TB with all else",
        "ilias/yfcc100m",
        "as their pages say",
        page="https://github.com/ilias-vrg/ilias/tree/main/download",
    ),
}
# Data sets in one folder, by its name
GROUPS: Mapping[str, tuple[str, ...]] = {"gldv2": ("gldv2_train", "gldv2_index", "gldv2_test")}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A file that lacks in a folder of data sets.

    Attributes:
      data: name of the data set.
      file: to download.
      folder: of the data set.
    """

    data: str
    file: PublishedFile
    folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Size:
    """Bytes of files.

    Attributes:
      measured: of the files whose server gave them.
      about: of others, as a page names them.
      unknown: number of files of which nothing is known.
    """

    measured: int = 0
    about: int = 0
    unknown: int = 0

    def __add__(self, other: "Size") -> "Size":
        """The size of both."""
        return Size(
            self.measured + other.measured, self.about + other.about, self.unknown + other.unknown
        )

    def __str__(self) -> str:
        """In words, such as `about 3.21 GB, and 2 files of unknown size`."""
        total = self.measured + self.about
        text = f"{'about ' if self.about else ''}{total / 1e9:.2f} GB" if total else ""
        if not self.unknown:
            return text or "0 GB"
        files = f"{self.unknown} file{'s' * (self.unknown > 1)} of unknown size"
        return f"{text}, and {files}" if text else files


def expand(names: Iterable[str]) -> list[str]:
    """Names of data sets, each once, of names of data sets and of `GROUPS`.

    Raises:
      UserError: for an unknown name.
    """
    found: dict[str, None] = {}
    for name in names:
        require_choice("data set", name, (*PUBLISHED, *GROUPS))
        found |= dict.fromkeys(GROUPS.get(name, (name,)))
    return list(found)


def missing(names: Sequence[str], root: pathlib.Path) -> list[Wanted]:
    """The files of data sets that a folder lacks.

    Args:
      names: of data sets, of `PUBLISHED` or `GROUPS`.
      root: folder of all data sets.

    Returns:
      What to download.

    Raises:
      UserError: for an unknown name.
    """
    found = []
    for name in expand(names):
        data = PUBLISHED[name]
        folder = root / data.folder
        found += [
            Wanted(name, file, folder)
            for file in data.files
            if not (folder / file.path).exists() and not _marker(folder, file).exists()
        ]
    return found


def by_hand(names: Sequence[str], root: pathlib.Path) -> dict[str, str]:
    """What lacks and no program can download: by name of the data set, what to do."""
    return {
        name: f"by hand: get it from {data.page} and put it in {root / data.folder}"
        for name, data in ((name, PUBLISHED[name]) for name in expand(names))
        if data.page and not (root / data.folder).is_dir()
    }


def size_on_page(data: PublishedData) -> Size:
    """What the pages of a data set say of its size."""
    return sum((_about(file) for file in data.files), Size())


def _about(file: PublishedFile) -> Size:
    return Size(about=file.megabytes * _MEGA, unknown=int(not file.megabytes))


def sizes(wanted: Sequence[Wanted], parallel: int) -> list[Size]:
    """Size of each file: that of its server, or about that of its page if the server is silent.

    Args:
      wanted: files.
      parallel: requests at a time.

    Returns:
      A size for each.
    """
    silent: set[str] = set()

    def ask(one: Wanted) -> Size:
        host = urllib.parse.urlsplit(one.file.url).netloc
        found = None if host in silent else downloads.size(one.file.url)
        if found is not None:
            return Size(measured=found)
        silent.add(host)
        return _about(one.file)

    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(ask, wanted))


def download(
    names: Sequence[str],
    root: pathlib.Path,
    wanted: Sequence[Wanted],
    sizes: Sequence[Size],
    parallel: int,
) -> None:
    """Downloads what data sets lack, several files at a time.

    A folder of images appears under its name when all of its archives are unpacked. A file that
    fails does not stop the others.

    Args:
      names: of the data sets.
      root: folder of all data sets.
      wanted: of `missing`.
      sizes: of each.
      parallel: downloads at a time.

    Raises:
      UserError: before the first byte, if the disk has too little space or cannot be written; at
        the end, if files failed. The same call resumes.
    """
    total = sum(sizes, Size())
    try:
        _require_space(root, wanted, total)
        failures = _download_all(wanted, total, parallel)
        for name in expand(names):
            _finish(PUBLISHED[name], root)
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror or error})"
        raise UserError("--data", str(root), rule) from error
    if failures:
        rule = "could not be had; the same command downloads only what lacks. The first: "
        count = f"{len(failures)} of {len(wanted)} files"
        raise UserError("download", count, f"{rule}{min(failures)}")


def _require_space(root: pathlib.Path, wanted: Sequence[Wanted], total: Size) -> None:
    root.mkdir(parents=True, exist_ok=True)
    parts = [downloads.part_of(_target(one)) for one in wanted]
    held = sum(part.stat().st_size for part in parts if part.exists())
    free = shutil.disk_usage(root).free
    if total.measured + total.about - held > free:
        rule = f"has {free / 1e9:.2f} GB free, and the files are {total}"
        raise UserError("--data", str(root), rule)


def _download_all(wanted: Sequence[Wanted], total: Size, parallel: int) -> list[str]:
    """Downloads; returns the errors of files that failed."""
    failures: list[str] = []
    lock, arrived = threading.Lock(), 0
    title, megabytes = "download", -(-(total.measured + total.about) // _MEGA)
    with Progress(title, megabytes, "MB") as progress:

        def advance(count: int) -> None:
            nonlocal arrived
            with lock:
                before, arrived = arrived // _MEGA, arrived + count
                progress.advance(arrived // _MEGA - before)

        def fetch(one: Wanted) -> None:
            try:
                _download_one(one, advance)
            except UserError as error:
                failures.append(str(error))

        # Lists and sums come first: archives are compared with their sums
        for large in (False, True):
            few = [one for one in wanted if bool(one.file.sums or one.file.unpack) == large]
            with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
                waiting = [pool.submit(fetch, one) for one in few]
                try:
                    for future in concurrent.futures.as_completed(waiting):
                        future.result()
                except BaseException:  # a full disk, or Ctrl-C
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    return failures


def _download_one(one: Wanted, advance: Callable[[int], None]) -> None:
    digest = ""
    unpack: downloads.Unpack | None = None
    if one.file.sums:
        digest = _sum_of(one.file, one.folder / one.file.sums)
    if one.file.unpack:
        unpack = functools.partial(_unpack, one.file)
    downloads.download(one.file.url, _target(one), digest, unpack, advance)


def _sum_of(file: PublishedFile, sums: pathlib.Path) -> str:
    """The published sum, as `downloads.download` takes it."""
    if not sums.is_file():
        rule = "could not be downloaded, so that its archive cannot be checked"
        raise UserError("file of sums", str(sums), rule)
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    own = [line for line in lines if line.strip().rpartition("/")[2].split()[-1:] == [file.name]]
    found = [match.group().lower() for line in own or lines for match in _SUM.finditer(line)]
    if len(found) != 1:
        rule = f"must hold one sum of 32 or 64 hexadecimal digits for {file.name}; remove it and "
        raise UserError("file of sums", str(sums), f"{rule}fetch it again")
    return found[0] if len(found[0]) == 64 else f"md5:{found[0]}"


def _target(one: Wanted) -> pathlib.Path:
    return _marker(one.folder, one.file) if one.file.unpack else one.folder / one.file.path


def _marker(folder: pathlib.Path, file: PublishedFile) -> pathlib.Path:
    """The empty file that says that an archive is unpacked."""
    return folder / _UNPACKING / f"{file.name}.unpacked"


def _unpack(file: PublishedFile, url: str, archive: pathlib.Path, marker: pathlib.Path) -> None:
    folder = marker.parent / file.path
    downloads.unpack_files(url, archive, folder, flat=file.unpack == FLAT)
    marker.touch()


def _finish(data: PublishedData, root: pathlib.Path) -> None:
    """Moves unpacked images to their place, if all archives of a data set are there."""
    archives = [file for file in data.files if file.unpack]
    folder = root / data.folder
    if not archives or not all(_marker(folder, file).exists() for file in archives):
        return
    with locks.after_others(folder / _UNPACKING):
        for path in dict.fromkeys(file.path for file in archives):
            if not (folder / path).exists():
                os.replace(folder / _UNPACKING / path, folder / path)
        shutil.rmtree(folder / _UNPACKING, ignore_errors=True)
