"""What a notebook needs: a model that describes, matches and searches for images.

import delg_jax
model = delg_jax.load("runs/photos")  # a workdir of delg extract or train, or a weights file
hits = model.search("query.jpg", method="global+sp")
"""

import functools
import io
import os
import pathlib

import ml_collections
import numpy as np
from PIL import Image

from delg_jax import configuration, workdir
from delg_jax.data.images import BadImageError, decode, prepare
from delg_jax.errors import UserError
from delg_jax.features.experiment import extract, has_local
from delg_jax.features.extractor import Features, in_original_pixels
from delg_jax.features.in_memory import as_stored
from delg_jax.features.network import Network, check_dimension
from delg_jax.features.origins import Box
from delg_jax.models.weights import PUBLISHED, locate
from delg_jax.reports import matches as drawings
from delg_jax.retrieval.pair_matching import ImagePair, match_features
from delg_jax.retrieval.searcher import Hit, Searcher, check_request
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.training import checkpoints
from delg_jax.training.named_weights import find_weights

ImageLike = str | pathlib.Path | bytes | np.ndarray | Image.Image

_WEIGHTS_CONFIG = "local_to_global"  # of weights given without a configuration


class Model:
    """A network, and the database of a workdir if it has one.

    Args:
      config: the whole tree.
      root: the workdir; for weights alone, a folder that need not exist.

    Attributes:
      config: as given.

    Raises:
      UserError: for a configuration or weights that cannot be used.
    """

    def __init__(self, config: ml_collections.ConfigDict, root: pathlib.Path) -> None:
        check_dimension(config)
        self.config, self._root = config, root

    def features(self, image: ImageLike, box: Box | None = None) -> Features:
        """Describes an image as the feature store of this configuration holds it.

        Args:
          image: a file, its bytes, a PIL image, or uint8 [H, W, 3], RGB.
          box: the part to describe, [x1, y1, x2, y2] in pixels; None for the whole image.

        Returns:
          The global descriptor, float32 [D], and the local features, K of them, best first, with
          locations (y, x) in pixels of the image, or of the box.

        Raises:
          UserError: for an image or box that cannot be used.
        """
        pixels = self.pixels(image)
        try:
            prepared, scale, _ = prepare(pixels, box, self.config.extract.max_size)
        except BadImageError as error:
            raise UserError("box", box, str(error)) from error
        found = in_original_pixels(self._network.extractor([prepared])[0], scale)
        settings = self.config.extract
        return as_stored(found, settings.local_encoding, settings.global_dtype)

    def match(self, first: ImageLike, second: ImageLike) -> ImagePair:
        """Matches two images by their local features and verifies the matches by geometry.

        Args:
          first: takes the role of the query; see `features`.
          second: see `features`.

        Returns:
          The images, the locations of their matches, and the verification, whose `inlier_mask`
          marks the matches that agree on one transformation. `draw` shows them.

        Raises:
          UserError: for an image that cannot be used, or a network without local features.
        """
        if not has_local(self.config):
            rule = "must be True: local features are matched"
            raise UserError("config.model.local_head", False, rule)
        both = self.pixels(first), self.pixels(second)
        found = [self.features(image).local for image in both]
        sides = [local for local in found if local is not None]
        settings, shrunk = RerankSettings.of(self.config.rerank).sp, self.config.extract.max_size
        return match_features(both, sides, settings, self.config.seed, shrunk)

    def search(
        self,
        image: ImageLike,
        method: str = "global",
        box: Box | None = None,
        top: int = 10,
    ) -> list[Hit]:
        """Finds the images of the database that show the same as an image.

        Args:
          image: see `features`.
          method: one of `delg_jax.retrieval.methods.METHODS`.
          box: the part to search for, [x1, y1, x2, y2] in pixels; None for the whole image.
          top: maximum number of hits.

        Returns:
          The hits, best first, each with `name`, `score` and `image`, its index in the database.

        Raises:
          UserError: for a wrong argument, or a workdir without a database.
        """
        check_request(method, top, self.config)
        query = self._searcher.query(self.pixels(image), box)
        return self._searcher.search(query, method, top).hits

    def pixels(self, image: ImageLike) -> np.ndarray:
        """The pixels of an image, uint8 [H, W, 3]; a UserError if it cannot be used."""
        if isinstance(image, Image.Image):
            file = io.BytesIO()
            image.save(file, "PNG")
            image = file.getvalue()
        data = self.config.data
        if isinstance(image, np.ndarray):
            is_rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            if not (is_rgb and image.size):
                found = f"{image.dtype} {list(image.shape)}"
                raise UserError("image", found, "must be uint8 [H, W, 3], RGB")
            return image
        name = "bytes" if isinstance(image, bytes) else str(image)
        try:
            content = image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
            return decode(content, data.min_side, data.max_pixels)
        except OSError as error:
            raise UserError("image", name, f"cannot be read: {error.strerror}") from error
        except BadImageError as error:
            raise UserError("image", name, f"cannot be used: {error}") from error

    @functools.cached_property
    def _network(self) -> Network:
        """The network, with the projection of the database if the configuration has one."""
        network = Network(self.config, self._root)
        if self.config.extract.pca_dim:
            network.extractor.pca = extract(self.config, self._root).database.read_pca()
        return network

    @functools.cached_property
    def _searcher(self) -> Searcher:
        if not _has_features(self._root):
            rule = "has no database to search in; run delg extract with this workdir first"
            raise UserError("workdir", str(self._root), rule)
        return Searcher(self.config, self._root)


def load(source: str | pathlib.Path, config: ml_collections.ConfigDict | None = None) -> Model:
    """Opens a workdir, or a file of weights.

    Args:
      source: a workdir of `delg extract`, whose database can be searched; a workdir of `delg
        train`; or a file or published name of weights, as `config.model.pretrained` takes it.
      config: the whole tree; None for that stored in the workdir or, for weights, that of
        configs/local_to_global.py without PCA, for the backbone that the file holds.

    Returns:
      The model; its network is loaded when it is first used.

    Raises:
      UserError: for a source that does not exist or cannot be used.
    """
    path = pathlib.Path(os.path.expanduser(source))  # which never fails, as pathlib's may
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        return Model(config or _stored_config(path), path)
    if not path.exists() and str(source) not in PUBLISHED:
        rule = f"must be a workdir, a file of weights, or one of {', '.join(PUBLISHED)}"
        raise UserError("source", str(source), rule)
    config = config or _config_of_weights(str(path))
    config = configuration.override(config, {"model.pretrained": str(path)})
    place = pathlib.Path(locate(str(path)))
    return Model(config, place.with_name(f".{place.name}.workdir"))


def draw(pair: ImagePair) -> Image.Image:
    """Draws two images side by side, with a line for each inlier; see `Model.match`."""
    return drawings.draw(pair.images, pair.locations, pair.verification.inlier_mask)


def _has_features(root: pathlib.Path) -> bool:
    return (root / "features" / "database" / workdir.CONFIG_FILE).is_file()


def _stored_config(root: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the features in a workdir, else of its training."""
    if _has_features(root):
        stored = workdir.stored_config(root / "features" / "database")
    else:
        stored = workdir.stored_config(root / checkpoints.FOLDER)
    return configuration.unflatten(stored).lock()


def _config_of_weights(weights: str) -> ml_collections.ConfigDict:
    fields = {f"model.{name}": value for name, value in find_weights(weights).fields.items()}
    config = configuration.load(_WEIGHTS_CONFIG)
    return configuration.override(config, fields | {"extract.pca_dim": 0})
