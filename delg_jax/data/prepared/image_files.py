"""The file of an image, which never lies outside the folder it belongs to."""

import dataclasses
import pathlib
from collections.abc import Callable

from delg_jax import file_names
from delg_jax.data.formats import SUFFIXES
from delg_jax.data.images import BadImageError


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
      part: folder of the images, relative to `root`; "" if they lie in it.
      name: of the image.
      find: `by_id` or `inside`.
    """

    root: pathlib.Path
    part: str
    name: str
    find: Callable[[pathlib.Path, str], pathlib.Path]

    def path(self) -> pathlib.Path:
        """Where it is; a BadImageError if that is outside the folder."""
        return self.find(self.root / self.part, self.name)

    def __call__(self) -> bytes:
        """The encoded bytes; an OSError if there is no such file."""
        return self.path().read_bytes()
