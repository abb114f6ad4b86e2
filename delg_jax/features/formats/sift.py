"""SIFT of OpenCV (Lowe, IJCV 2004) for the images of an experiment, as an HDF5 file of hloc."""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from delg_jax.data import ImageSource
from delg_jax.errors import UserError
from delg_jax.features.extract import Extracted
from delg_jax.features.extraction import Box, Loader
from delg_jax.features.formats import hloc
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.network import query_boxes
from delg_jax.progress import Progress

_LENGTH = 128  # of a descriptor


def require_opencv() -> Any:
    """Returns OpenCV; a UserError that names the extra if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        rule = "is not installed, and SIFT needs it: the extra `bench` of delg_jax installs it"
        raise UserError("package", "opencv-python-headless", rule) from error
    return cv2


def write(path: pathlib.Path, extracted: Extracted, config: ml_collections.ConfigDict) -> None:
    """Extracts SIFT of database and queries, and writes it beside the global descriptors.

    Images are cropped and shrunk as they are for the network, whose number of features is the
    largest here too. Images that cannot be read are left out.

    Args:
      path: of the HDF5 file; whole or not at all.
      extracted: features of the network, whose global descriptors are taken.
      config: the whole tree.

    Raises:
      UserError: if OpenCV or h5py is not installed, or two images have one name.
    """
    detector = require_opencv().SIFT_create(nfeatures=config.extract.max_features)
    if both := set(extracted.data.queries.names) & set(extracted.data.database.names):
        rule = "is the name of a query and of a database image, which one HDF5 file cannot hold"
        raise UserError("image", min(both), rule)
    parts = (
        (extracted.database, extracted.data.database, None),
        (extracted.queries, extracted.data.queries, query_boxes(config, extracted.data)),
    )
    for source in (extracted.data.database, extracted.data.queries):
        name, count = collections.Counter(source.names).most_common(1)[0]
        if count > 1:
            rule = f"is the name of {count} images, which one HDF5 file cannot hold"
            raise UserError("image", name, rule)
    with hloc.writing(path) as writer:
        for store, source, boxes in parts:
            descriptors = store.global_descriptors()
            with Progress(f"SIFT {store.folder.name}", len(source), "image") as progress:
                for name, local, pooled in _features(detector, source, boxes, config, descriptors):
                    writer.write(name, local)
                    writer.write_global(name, pooled)
                    progress.advance()


def _features(
    detector: Any,
    source: ImageSource,
    boxes: list[Box] | None,
    config: ml_collections.ConfigDict,
    descriptors: Sequence[np.ndarray],
):
    load = Loader(source, config.data, config.extract.max_size, boxes)
    for index, name in enumerate(source.names):
        loaded = load(index)
        if not isinstance(loaded, str):
            local = detect(detector, loaded.image, config.extract.max_features)
            placed = local._replace(
                locations=local.locations / loaded.scale, scales=local.scales / loaded.scale
            )
            yield name, placed, descriptors[index]


def detect(detector: Any, image: np.ndarray, count: int) -> LocalFeatures:
    """The strongest SIFT features of an image.

    Args:
      detector: of OpenCV.
      image: uint8 [H, W, 3], RGB.
      count: at most so many.

    Returns:
      LocalFeatures [K], best first; scores are the responses, scales the diameters in pixels.
    """
    grey = require_opencv().cvtColor(image, require_opencv().COLOR_RGB2GRAY)
    points, descriptors = detector.detectAndCompute(grey, None)
    if not points:
        descriptors = np.zeros((0, _LENGTH), np.float32)
    scores = np.array([point.response for point in points], np.float32)
    best = np.argsort(-scores, kind="stable")[:count]
    return LocalFeatures(
        np.array([point.pt[::-1] for point in points], np.float32).reshape(-1, 2)[best],
        np.array([point.size for point in points], np.float32)[best],
        scores[best],
        np.asarray(descriptors, np.float32)[best],
        np.ones(len(best), bool),
    )
