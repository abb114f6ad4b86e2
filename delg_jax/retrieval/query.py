"""One picture searched in the database of a workdir."""

import math
import pathlib

import ml_collections
import numpy as np

from delg_jax.data import images
from delg_jax.errors import UserError
from delg_jax.features.origins import Box
from delg_jax.retrieval.searcher import Hit, Searcher, check_has_network, check_request


def search_image(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    image: str | pathlib.Path,
    box: Box | None = None,
    method: str = "global",
    top: int = 10,
    overwrite: bool = False,
) -> list[Hit]:
    """Ranks the database for a picture; a `Searcher` does so for many.

    Args:
      config: the whole tree.
      workdir: whose network, features and graph are used; they are made if need be.
      image: file of the picture.
      box: the part to look for, [x1, y1, x2, y2] in pixels; None for all of it.
      method: one of `methods.METHODS`.
      top: hits wanted, at most.
      overwrite: whether artefacts of another configuration are deleted instead of refused.

    Returns:
      The hits, best first.

    Raises:
      UserError: for a picture, box or method that cannot be used, or whatever extraction meets.
    """
    check_has_network(config)
    check_request(method, top, config)
    picture = read_picture("--image", image, config.data)
    searcher = Searcher(config, workdir, overwrite)
    return searcher.search(searcher.query(picture, box), method, top).hits


def read_picture(
    subject: str, path: str | pathlib.Path, data: ml_collections.ConfigDict
) -> np.ndarray:
    """Decodes a picture that a user names.

    Args:
      subject: the flag or argument that names it.
      path: its file.
      data: the `config.data` tree.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: if it cannot be read or used.
    """
    try:
        return images.decode(pathlib.Path(path).read_bytes(), data.min_side, data.max_pixels)
    except OSError as error:
        raise UserError(subject, str(path), f"cannot be read: {error.strerror}") from error
    except images.BadImageError as error:
        raise UserError(subject, str(path), f"cannot be used: {error}") from error


def parse_box(text: str) -> Box:
    """Reads a box, x1,y1,x2,y2 in pixels; a UserError if it is none."""
    try:
        x1, y1, x2, y2 = (float(side) for side in text.split(","))
    except ValueError as error:
        rule = "must be four numbers x1,y1,x2,y2 in pixels"
        raise UserError("--box", text, rule) from error
    if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, (x1, y1, x2, y2)))):
        raise UserError("--box", text, "must have x1 < x2 and y1 < y2")
    return x1, y1, x2, y2
