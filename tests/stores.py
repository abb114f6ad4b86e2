"""Feature stores filled with random numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout, Row
from delg_jax.features.store import FeatureStore


def features(rng: np.random.Generator, count: int, padded: int = 5, dim: int = 8) -> Features:
    """An image with `count` features, best first, and random numbers where the mask is False."""
    descriptors = rng.normal(size=(padded, dim)).astype(np.float32)
    return Features(
        rng.normal(size=6).astype(np.float32),
        LocalFeatures(
            locations=rng.random((padded, 2), np.float32),
            scales=rng.random(padded, np.float32),
            scores=np.sort(rng.random(padded, np.float32))[::-1],
            descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
            mask=np.arange(padded) < count,
        ),
    )


def names(count: int) -> list[str]:
    """image0, image1, ..."""
    return [f"image{number}" for number in range(count)]


def fill(folder: Path, rows: Sequence[Row], chunk: int = 3, **layout: int | str) -> FeatureStore:
    """Writes the missing rows of a store."""
    layout = Layout(chunk, **{"max_features": 5, **layout})
    store = FeatureStore.prepare(folder, names(len(rows)), layout)
    for run in store.missing():
        store.write(run, [rows[i] for i in run], np.full((len(run), 2), run.start))
    store.finish()
    return store
