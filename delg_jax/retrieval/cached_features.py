"""Features of a store that are kept in memory between searches."""

from typing import Any

import numpy as np

from delg_jax.features import FeatureStore, LocalFeatures
from delg_jax.features.store import Rows


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
