"""One picture searched in the database of a workdir."""

import dataclasses
import pathlib

import ml_collections
import numpy as np

from delg_jax.data import images
from delg_jax.errors import UserError
from delg_jax.evaluation import methods
from delg_jax.features import Extracted, extract
from delg_jax.features.extraction import Box, prepare
from delg_jax.features.extractor import in_original_pixels
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.features.network import Network
from delg_jax.rerank import spatial_verification
from delg_jax.search.stage import build_index, index_folder


@dataclasses.dataclass(frozen=True)
class Hit:
    """A database image that was found.

    Attributes:
      name: of the image.
      score: what the method ranks by, a similarity or a score; of `...+sp`, the number of inliers,
        and of `global+superglobal` the similarity of the search before. Minus infinity below the
        short list of a re-ranking.
    """

    name: str
    score: float


def search_image(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    image: str | pathlib.Path,
    box: Box | None = None,
    method: str = "global",
    top: int = 10,
    overwrite: bool = False,
) -> list[Hit]:
    """Ranks the database for a picture; extracts the database, or builds the graph, if need be.

    Args:
      config: the whole tree.
      workdir: whose network, features and graph are used.
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
    if is_imported(config.extract):
        rule = "cannot be searched: the features of this experiment come from files, and the "
        rule += "network that made them is not here"
        raise UserError("--image", str(image), rule)
    methods.check("--method", method, config)
    if top < 1:
        raise UserError("--top", top, "must be at least 1")
    picture = read_picture("--image", image, config.data)
    root = pathlib.Path(workdir)
    extracted = extract(config, root, overwrite)
    extractor = Network(config, root).extractor
    extractor.pca = extracted.database.read_pca()
    try:
        prepared, scale, _ = prepare(picture, box, config.extract.max_size)
    except images.BadImageError as error:
        raise UserError("--box", box, str(error)) from error
    features = in_original_pixels(extractor([prepared])[0], scale)
    one = InMemoryFeatures([features], config.extract.local_encoding)
    extracted = extracted._replace(queries=one)
    order, scores = _rank(method, config, root, extracted, overwrite)
    names = extracted.database.names
    best = zip(order[:top], scores[:top], strict=True)
    return [Hit(names[image], float(score)) for image, score in best]


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


def _rank(
    method: str,
    config: ml_collections.ConfigDict,
    root: pathlib.Path,
    extracted: Extracted,
    overwrite: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The database's images for the one query, best first, int [N], and their scores [N]."""
    folder = index_folder(config, root, extracted, overwrite)
    first = methods.search(method, extracted, config.search, folder)
    if method.endswith("+sp"):
        return _verified(first, config, extracted)
    graph = None
    if methods.needs_graph(method):
        kind = method.split("+")[0]
        graph = build_index(config, root, overwrite, extracted, kind)
    block = config.search.global_block
    found = methods.rerank(method, extracted, first, graph, config.rerank, block)
    return found.images[0], found.similarities[0]


def _verified(
    first: methods.Ranking, config: ml_collections.ConfigDict, extracted: Extracted
) -> tuple[np.ndarray, np.ndarray]:
    """Images [N] and inliers [N] in their order, of which only the short list has any."""
    order, similarities = first.images[0], first.similarities[0]
    count = config.rerank.sp.short_list
    candidates = spatial_verification.short_list(order, [], count)
    inliers = methods.inlier_counter(extracted, config.rerank, config.seed)(0, candidates)
    images = spatial_verification.rerank(order, similarities, inliers, [], count)
    return images, inliers[images]
