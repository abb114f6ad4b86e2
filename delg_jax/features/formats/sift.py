"""SIFT features (Lowe, IJCV 2004) of an experiment by OpenCV, as an HDF5 file of hloc."""

import collections
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np

from delg_jax.errors import UserError, require_package
from delg_jax.features.experiment import Extracted
from delg_jax.features.extraction import Loader
from delg_jax.features.formats import hloc
from delg_jax.features.image_sets import query_boxes
from delg_jax.features.local_features import LocalFeatures
from delg_jax.progress import Progress

_LENGTH = 128  # of a descriptor


def require_opencv() -> Any:
    """Returns OpenCV; a UserError that names the extra if it is not installed."""
    rule = "SIFT needs it: the extra `bench` of delg_jax installs it"
    return require_package("cv2", "opencv-python-headless", rule)


def write(path: pathlib.Path, extracted: Extracted, config: ml_collections.ConfigDict) -> None:
    """Extracts SIFT of database and queries, and writes it with the global descriptors.

    Images are cropped and shrunk, and the number of features is limited, as for the network.
    Images that cannot be read are left out.

    Args:
      path: of the HDF5 file, which is written atomically.
      extracted: features of the network, whose global descriptors are written.
      config: the whole tree.

    Raises:
      UserError: if OpenCV or h5py is not installed, or two images have the same name.
    """
    extract = config.extract
    detector = require_opencv().SIFT_create(nfeatures=extract.max_features)
    if both := set(extracted.data.queries.names) & set(extracted.data.database.names):
        rule = "is the name of a query and of a database image, which one HDF5 file cannot hold"
        raise UserError("image", min(both), rule)
    for source in (extracted.data.database, extracted.data.queries):
        name, count = collections.Counter(source.names).most_common(1)[0]
        if count > 1:
            rule = f"is the name of {count} images, which one HDF5 file cannot hold"
            raise UserError("image", name, rule)
    limits = extract.max_size, config.data.min_side, config.data.max_pixels
    stores = (
        (extracted.database, extracted.data.database, None),
        (extracted.queries, extracted.data.queries, query_boxes(config, extracted.data)),
    )
    with hloc.writing(path) as writer:
        for store, source, boxes in stores:
            descriptors = store.global_descriptors()
            with Progress(f"SIFT {store.folder.name}", len(source), "image") as progress:
                loader = Loader(source, boxes, *limits)
                for index, local in features(detector, loader, extract.max_features):
                    writer.write(source.names[index], local)
                    writer.write_global(source.names[index], descriptors[index])
                    progress.advance()


def features(detector: Any, loader: Loader, count: int) -> Iterator[tuple[int, LocalFeatures]]:
    """Detects the features of images, cropped and shrunk as for the network.

    Args:
      detector: of OpenCV.
      loader: of the images.
      count: maximum number of features of an image.

    Yields:
      The position of an image in the source of the loader, and its features in pixels of the whole
      image; images that cannot be read are left out.
    """
    for index in range(len(loader.source)):
        loaded, _ = loader.load(index)
        if not isinstance(loaded, str):
            local = detect(detector, loaded.image, count)
            placed = local._replace(
                locations=local.locations / loaded.scale, scales=local.scales / loaded.scale
            )
            yield index, placed


def detect(detector: Any, image: np.ndarray, count: int) -> LocalFeatures:
    """Detects the strongest SIFT features of an image.

    Args:
      detector: of OpenCV.
      image: uint8 [H, W, 3], RGB.
      count: maximum number of features.

    Returns:
      LocalFeatures [K], best first; scores are responses, scales are diameters in pixels.
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


def root(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT, float32 [K, D] of unit norm: square roots of descriptors with sum 1.

    Arandjelovic and Zisserman, CVPR 2012. A descriptor of zeros stays so.

    Args:
      descriptors: float [K, D], not negative.
    """
    sums = descriptors.sum(axis=1, keepdims=True)
    return np.sqrt(descriptors / np.maximum(sums, 1e-12)).astype(np.float32)
