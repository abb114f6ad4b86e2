"""Search for one image in the database of a workdir."""

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
    """Ranks the database for one image; use a `Searcher` for many.

    Args:
      config: the whole tree.
      workdir: whose network, features and graph are used; missing ones are made.
      image: file of the image.
      box: the part to search for, [x1, y1, x2, y2] in pixels; None for the whole image.
      method: one of `methods.METHODS`.
      top: maximum number of hits.
      overwrite: whether outputs of another configuration are deleted instead of refused.

    Returns:
      The hits, best first.

    Raises:
      UserError: for a wrong image, box or method, or if extraction fails.
    """
    check_has_network(config)
    check_request(method, top, config)
    pixels = read_image("--image", image, config.data.min_side, config.data.max_pixels)
    searcher = Searcher(config, workdir, overwrite)
    return searcher.search(searcher.query(pixels, box), method, top).hits


def read_image(
    subject: str, path: str | pathlib.Path, min_side: int, max_pixels: int
) -> np.ndarray:
    """Decodes an image given by the user.

    Args:
      subject: the flag or argument, for errors.
      path: of the file.
      min_side: fewest pixels of a side.
      max_pixels: most pixels of the image.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: if it cannot be read or decoded.
    """
    try:
        return images.decode(pathlib.Path(path).read_bytes(), min_side, max_pixels)
    except OSError as error:
        raise UserError(subject, str(path), f"cannot be read: {error.strerror}") from error
    except images.BadImageError as error:
        raise UserError(subject, str(path), f"cannot be used: {error}") from error


def parse_box(text: str) -> Box:
    """Parses a box, x1,y1,x2,y2 in pixels; a UserError if it is malformed."""
    try:
        x1, y1, x2, y2 = (float(side) for side in text.split(","))
    except ValueError as error:
        rule = "must be four numbers x1,y1,x2,y2 in pixels"
        raise UserError("--box", text, rule) from error
    if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, (x1, y1, x2, y2)))):
        raise UserError("--box", text, "must have x1 < x2 and y1 < y2")
    return x1, y1, x2, y2
