"""Features of a store that stay in memory between searches."""

from typing import Any

import numpy as np

from delg_jax.features import FeatureStore, LocalFeatures
from delg_jax.features.store import Rows


class HeldFeatures:
    """Reads what is asked for once; rankings take it in the place of the store.

    What does not fit into `config.data.memory_megabytes` stays on disk, as the store has it.

    Args:
      store: whole.

    Attributes:
      names: of the images, in order.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._held: dict[Any, Any] = {}
        self.names = store.names

    def __len__(self) -> int:
        """Number of images."""
        return len(self._store)

    def present(self, kind: str) -> np.ndarray:
        """As of the store."""
        key = ("present", kind)
        if key not in self._held:
            self._held[key] = self._store.present(kind)
        return self._held[key]

    def global_descriptors(self) -> Rows:
        """As of the store."""
        if "global" not in self._held:
            self._held["global"] = self._store.global_descriptors()
        return self._held["global"]

    def local_features(self, count: int, packed: bool = False) -> LocalFeatures:
        """As of the store; each number of features and each form is held apart."""
        key = (count, packed)
        if key not in self._held:
            self._held[key] = self._store.local_features(count, packed)
        return self._held[key]
