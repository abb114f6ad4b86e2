"""Spatial verification of two images."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from delg_jax.data.images import prepare
from delg_jax.errors import UserError
from delg_jax.features import LocalFeatures, extract
from delg_jax.features.experiment import has_local
from delg_jax.features.extractor import in_original_pixels
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.features.network import Network, check_dimension
from delg_jax.rerank.spatial_verification import SpatialSettings, Verification, verify_pair
from delg_jax.retrieval.query import read_image
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.workdir import root_of


class ImagePair(NamedTuple):
    """Two images and their matches.

    Attributes:
      images: uint8 [H, W, 3] each.
      locations: float32 [L, 2] each, of the L matches, (y, x) in pixels.
      verification: matches, inliers, and the transformation from the second to the first.
    """

    images: tuple[np.ndarray, np.ndarray]
    locations: tuple[np.ndarray, np.ndarray]
    verification: Verification


def match_images(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    first: str | pathlib.Path,
    second: str | pathlib.Path,
    overwrite: bool = False,
) -> ImagePair:
    """Extracts, matches and verifies two images; the first takes the role of the query.

    Args:
      config: the whole tree; `config.rerank.sp` holds the settings.
      workdir: whose network is used, and its PCA if there is one; the database that the PCA is
        fitted on is then extracted if it is missing.
      first: file of the first image.
      second: file of the second.
      overwrite: whether outputs of another configuration are deleted instead of refused.

    Returns:
      Images, matches and inliers.

    Raises:
      UserError: for a wrong image or configuration.
    """
    if is_imported(config.extract):
        rule = "must be empty to compare images: imported features come without their network"
        raise UserError("config.extract.imported_local", config.extract.imported_local, rule)
    if not has_local(config):
        raise UserError(
            "config.model.local_head", False, "must be True: local features are matched"
        )
    settings = RerankSettings.of(config.rerank).sp  # before the network is loaded
    check_dimension(config)
    limits = config.data.min_side, config.data.max_pixels
    images = read_image("A", first, *limits), read_image("B", second, *limits)
    sides = _extract(config, root_of(workdir), images, overwrite)
    return match_features(images, sides, settings, config.seed, config.extract.max_size)


def match_features(
    images: tuple[np.ndarray, np.ndarray],
    sides: Sequence[LocalFeatures],
    settings: SpatialSettings,
    seed: int,
    max_size: float = 0,
) -> ImagePair:
    """Matches and verifies the local features of two images.

    Args:
      images: uint8 [H, W, 3] each; the first takes the role of the query.
      sides: their local features, rounded as in a store.
      settings: of spatial verification.
      seed: of the hypotheses that are drawn.
      max_size: pixels that the first image was shrunk to, in which inliers are counted; 0 if it
        was not.

    Returns:
      The images, matches and inliers, in pixels of the whole images.
    """
    scale = min(1.0, max_size / max(images[0].shape[:2])) if max_size else 1.0
    query = sides[0]._replace(locations=np.asarray(sides[0].locations) * np.float32(scale))
    found = verify_pair(query, sides[1], jax.random.key(seed), settings)
    transform = np.array(found.transform)
    transform[:2] /= np.float32(scale)
    found = found._replace(transform=transform)
    first, second = (
        np.asarray(side.locations)[found.matches[:, column]] for column, side in enumerate(sides)
    )
    return ImagePair(images, (first, second), found)


def _extract(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    images: tuple[np.ndarray, np.ndarray],
    overwrite: bool,
) -> list[LocalFeatures]:
    """Local features of whole images, rounded as in a store."""
    extractor = Network(config, workdir).extractor
    if config.extract.pca_dim:
        extractor.pca = extract(config, workdir, overwrite).database.read_pca()
    prepared, scales, _ = zip(
        *(prepare(image, None, config.extract.max_size) for image in images), strict=True
    )
    features = map(in_original_pixels, extractor(prepared), scales)
    both = InMemoryFeatures(list(features), config.extract.local_encoding).local_features(0)
    return [LocalFeatures(*(field[row] for field in both)) for row in range(2)]
