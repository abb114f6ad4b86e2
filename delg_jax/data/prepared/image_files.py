"""Reads the file of an image, without leaving the folder it belongs to."""

import pathlib

from delg_jax import file_names
from delg_jax.data.formats import SUFFIXES
from delg_jax.data.images import BadImageError


def read_by_id(folder: pathlib.Path, name: str) -> bytes:
    """Reads a Google Landmarks image, `a/b/c/abc….jpg` by its first characters, or `abc….jpg`.

    Args:
      folder: of the images of a split.
      name: id of the image, at least three characters.

    Returns:
      The encoded bytes.

    Raises:
      OSError: if there is no such file.
    """
    try:
        return folder.joinpath(*name[:3], f"{name}.jpg").read_bytes()
    except FileNotFoundError:
        return (folder / f"{name}.jpg").read_bytes()


def read_inside(folder: pathlib.Path, name: str) -> bytes:
    """Reads a file given relative to a folder.

    Args:
      folder: that the file must lie in.
      name: relative path; `.jpg` is added if it has no ending of an image.

    Returns:
      The encoded bytes.

    Raises:
      BadImageError: if the name is absolute or leads upwards.
      OSError: if there is no such file.
    """
    relative = pathlib.PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise BadImageError("must be a path inside the folder")
    full = name if relative.suffix.lower() in SUFFIXES else f"{name}.jpg"
    return file_names.to_path(folder, full).read_bytes()
