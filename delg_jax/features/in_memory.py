"""Features in memory with the reading methods of a store: of a few images, or of a whole store."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from delg_jax.data.images import limit_size
from delg_jax.errors import UserError
from delg_jax.features.extractor import Extractor, Features, in_original_pixels
from delg_jax.features.local_features import LocalFeatures, strongest
from delg_jax.features.pca import Pca
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.features.storage import encodings
from delg_jax.features.store import FeatureStore, Rows
from delg_jax.models.delg import Delg


@dataclasses.dataclass(frozen=True)
class InMemoryFeatures:
    """Features that can be ranked like a `FeatureStore`.

    Attributes:
      features: of each image; local features padded to one size, as an `Extractor` returns them.
      local_encoding: of the store that they are compared with, so that both are rounded alike.
      global_dtype: of the store that they are compared with.
    """

    features: Sequence[Features]
    local_encoding: str = "float32"
    global_dtype: str = "float32"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.features)

    def present(self, kind: str) -> np.ndarray:
        """Which images have features of `kind` global or local, bool [N]."""
        if kind == "global":
            return np.array([image.global_descriptor.any() for image in self.features], bool)
        local = (image.local for image in self.features)
        return np.array([one is not None and one.mask.any() for one in local], bool)

    def global_descriptors(self) -> np.ndarray:
        """Float32 [N, D], unit norm."""
        descriptors = np.stack([image.global_descriptor for image in self.features])
        return descriptors.astype(self.global_dtype).astype(np.float32)

    def local_features(self, count: int, packed: bool = False) -> LocalFeatures:
        """Returns the strongest features of every image.

        Args:
          count: K, maximum per image; 0 for all.
          packed: whether int8 or sign descriptors are returned without decoding.

        Returns:
          LocalFeatures [N, K].

        Raises:
          UserError: if the network has no local head.
        """
        if any(image.local is None for image in self.features):
            rule = "gives no local features: set config.model.local_head=True"
            raise UserError("config.model.local_head", False, rule)
        fields = zip(*(image.local for image in self.features), strict=True)
        local = strongest(LocalFeatures(*map(np.stack, fields)), count)
        codes = encodings.encode(np.asarray(local.descriptors), self.local_encoding)
        descriptors = codes.values if packed else encodings.decode(codes, self.local_encoding)
        return local._replace(descriptors=descriptors)


def as_stored(features: Features, local_encoding: str, global_dtype: str) -> Features:
    """Features of one image, rounded as a store of these encodings rounds them."""
    one = InMemoryFeatures([features], local_encoding, global_dtype)
    local = None
    if features.local is not None:
        batch = one.local_features(0)
        local = LocalFeatures(*(np.asarray(field[0]) for field in batch))
    return Features(one.global_descriptors()[0], local)


def extract_image(
    model: Delg,
    variables: Any,
    image: np.ndarray,
    extract_config: ml_collections.ConfigDict,
    pca: Pca | None = None,
) -> Features:
    """Extracts one image as `extract` stores it; see `delg_jax.load` for a whole workdir.

    Args:
      model: the network.
      variables: its parameters and BatchNorm statistics.
      image: uint8 [H, W, 3], RGB.
      extract_config: the `config.extract` tree.
      pca: the projection that `extract_config.pca_dim` asks for, `FeatureStore.read_pca` of the
        database that it was fitted on; None if it asks for none.

    Returns:
      Features; locations in pixels of `image`.

    Raises:
      ValueError: if the projection is missing.
    """
    if extract_config.pca_dim and pca is None:
        rule = "needs `pca`, the projection of the database"
        raise ValueError(f"`extract_config.pca_dim` (={extract_config.pca_dim}) {rule}")
    limited, scale = limit_size(image, extract_config.max_size)
    settings = ExtractionSettings.of(extract_config)
    found = Extractor(model, variables, settings, pca)([limited])[0]
    found = in_original_pixels(found, scale)
    return as_stored(found, extract_config.local_encoding, extract_config.global_dtype)


class CachedFeatures:
    """Reads everything once; searches take it in place of the store.

    What does not fit into `config.data.memory_megabytes` stays on disk, as in the store.

    Args:
      store: a finished store.

    Attributes:
      names: of the images, in order.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._cache: dict[Any, Any] = {}
        self.names = store.names

    def __len__(self) -> int:
        """Number of images."""
        return len(self._store)

    def present(self, kind: str) -> np.ndarray:
        """As `FeatureStore.present`."""
        key = ("present", kind)
        if key not in self._cache:
            self._cache[key] = self._store.present(kind)
        return self._cache[key]

    def global_descriptors(self) -> Rows:
        """As `FeatureStore.global_descriptors`."""
        if "global" not in self._cache:
            self._cache["global"] = self._store.global_descriptors()
        return self._cache["global"]

    def local_features(self, count: int, packed: bool = False) -> LocalFeatures:
        """As `FeatureStore.local_features`, cached for each combination of arguments."""
        key = (count, packed)
        if key not in self._cache:
            self._cache[key] = self._store.local_features(count, packed)
        return self._cache[key]
