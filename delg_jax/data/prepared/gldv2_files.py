"""The published files of Google Landmarks v2: in a folder, or fetched by TFDS."""

import dataclasses
import pathlib

import tensorflow_datasets as tfds

from delg_jax.data.prepared.tars import Archive
from delg_jax.errors import UserError

URL = "https://s3.amazonaws.com/google-landmark"
TARS = {"train": 500, "index": 100, "test": 20}


@dataclasses.dataclass(frozen=True)
class PublishedFiles:
    """What a part of the data set consists of.

    Attributes:
      tables: path of each csv file by its name.
      archives: tars with their MD5 files; empty if the images are unpacked.
      images: folder of the unpacked images, `a/b/c/abc….jpg`.
    """

    tables: dict[str, pathlib.Path]
    archives: list[Archive]
    images: pathlib.Path | None


def in_folder(root: pathlib.Path, part: str, tables: tuple[str, ...]) -> PublishedFiles:
    """Finds the files in a folder.

    Args:
      root: with the csv files, and a folder `part` of tars `images_*.tar` (beside them, if they
        are to be checked, `md5.images_*.txt`) or of unpacked images.
      part: `train`, `index` or `test`.
      tables: names of the csv files.

    Returns:
      PublishedFiles.

    Raises:
      UserError: if there is no folder of that part.
    """
    images = root / part
    if not images.is_dir():
        raise UserError("config.data.root", str(root), f"must have a folder {part}/")
    archives = []
    for tar in sorted(images.glob("images_*.tar")):
        sums = tar.with_name(f"md5.{tar.stem}.txt")
        archives.append((tar, sums if sums.is_file() else None))
    return PublishedFiles({name: root / name for name in tables}, archives, images)


def download(
    dl_manager: tfds.download.DownloadManager, part: str, tables: tuple[str, ...]
) -> PublishedFiles:
    """Fetches the files, each once, into TFDS's folder of downloads.

    Args:
      dl_manager: of TFDS.
      part: `train` (500 tars), `index` (100) or `test` (20).
      tables: names of the csv files.

    Returns:
      PublishedFiles.

    Raises:
      UserError: if a file cannot be fetched.
    """
    names = [f"images_{number:03d}" for number in range(TARS[part])]
    urls = {
        "tables": {name: f"{URL}/metadata/{name}" for name in tables},
        "tars": {name: f"{URL}/{part}/{name}.tar" for name in names},
        "sums": {name: f"{URL}/md5sum/{part}/md5.{name}.txt" for name in names},
    }
    try:
        found = dl_manager.download(urls)
    except (OSError, tfds.download.DownloadError) as error:
        rule = f"names no folder, and the files could not be fetched: {error}"
        raise UserError("config.data.root", "", rule) from error
    archives = [(pathlib.Path(found["tars"][n]), pathlib.Path(found["sums"][n])) for n in names]
    paths = {name: pathlib.Path(path) for name, path in found["tables"].items()}
    return PublishedFiles(paths, archives, None)
