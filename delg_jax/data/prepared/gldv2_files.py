"""The published files of Google Landmarks v2: in a folder, or fetched by TFDS."""

import pathlib

import tensorflow_datasets as tfds

from delg_jax.data.prepared.manifest import Source
from delg_jax.errors import UserError

URL = "https://s3.amazonaws.com/google-landmark"
TARS = {"train": 500, "index": 100, "test": 20}


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
        "tables": {name: f"{URL}/metadata/{name}" for name in tables},
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
