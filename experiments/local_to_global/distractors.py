"""Distractors made of photographs: features of images that no query shows, as many as wanted.

A distractor takes two photographs: every feature of the first is moved towards the nearest feature
of the second, by a share drawn for the image, and a tenth to a half of the features are left out;
its global descriptor is moved by the same share. So what is alike within an image stays alike, as
in windows and leaves, and features stay where features of photographs are; copies of one photograph
are no near-duplicates. `hardness` compares the similarities of queries to the photographs and to
distractors.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import delg_jax
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress
from delg_jax.search import engines
from delg_jax.search.engine_choice import SearchSettings

_LEAST, _MOST = 0.3, 0.7  # share of the way towards the nearest feature of another photograph
_LEFT_OUT = 0.1, 0.5  # share of the features of an image


def distractor(photographs: Sequence[Features], number: int) -> Features:
    """Makes an image of two photographs; see the top of the file.

    Args:
      photographs: at least two, with local features without padding.
      number: of the distractor, which decides it.

    Returns:
      Its features; local ones without padding.
    """
    rng = np.random.default_rng([number, 23])
    chosen = rng.choice(len(photographs), 2, replace=False)
    first, second = (photographs[index] for index in chosen)
    share = rng.uniform(_LEAST, _MOST)
    assert first.local is not None  # `extract_photographs`
    assert second.local is not None
    descriptors = np.asarray(first.local.descriptors, np.float32)
    others = np.asarray(second.local.descriptors, np.float32)
    if len(descriptors) and len(others):
        nearest = others[(descriptors @ others.T).argmax(axis=1)]
        descriptors = _unit(descriptors + share * (nearest - descriptors))
    kept = rng.random(len(descriptors)) >= rng.uniform(*_LEFT_OUT)
    local = first.local._replace(descriptors=descriptors)
    between = second.global_descriptor - first.global_descriptor
    return Features(
        _unit(first.global_descriptor + share * between),
        LocalFeatures(*(np.asarray(field)[kept] for field in local)),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def extract_photographs(
    model: delg_jax.Model,
    pictures: Mapping[str, Callable[[], Any]],
    features: int,
    folder: pathlib.Path,
) -> FeatureStore:
    """The features of photographs by the network of a workdir; extracted once.

    Args:
      model: of the workdir.
      pictures: by name, a function that returns a picture, as `Model.features` takes it.
      features: of an image, K.
      folder: of the store that keeps them.

    Returns:
      The store.
    """
    names = list(pictures)
    store = FeatureStore.prepare(folder, names, Layout(8, "float16", "float32", features))
    missing = store.missing()
    left = sum(map(len, missing))
    with Progress("photographs", len(names), done=len(names) - left) as progress:
        for run in missing:
            store.write(run, [model.features(pictures[names[row]]()) for row in run])
            progress.advance(len(run))
    store.finish()
    return store


def read_images(store: FeatureStore, features: int) -> Callable[[int], Features]:
    """A function that returns the features of an image, without padding, by its number."""
    local, pooled = store.local_features(features), store.global_descriptors()

    def read(row: int) -> Features:
        mask = np.asarray(local.mask[row])
        fields = (np.asarray(field[row])[mask] for field in local)
        return Features(np.asarray(pooled[row]), LocalFeatures(*fields))

    return read


def write_database(
    real: FeatureStore,
    photographs: Sequence[Features],
    count: int,
    layout: Layout,
    folder: pathlib.Path,
) -> FeatureStore:
    """Writes the features of real images and distractors, unless they are there.

    Args:
      real: the first of them.
      photographs: that distractors are made of.
      count: images, N, at least; a folder may have more.
      layout: of the store.
      folder: of the store.

    Returns:
      The store.
    """
    names = [*real.names, *(f"distractor_{number:08d}" for number in range(len(real), count))]
    store = FeatureStore.open_or_make(folder, layout)
    store.append(names[store.index["images"] :])
    own = read_images(real, layout.max_features)
    missing = store.missing()
    left = sum(map(len, missing))
    with Progress("distractors", count, done=count - left) as progress:
        for run in missing:
            store.write(run, [own(n) if n < len(real) else distractor(photographs, n) for n in run])
            progress.advance(len(run))
    store.finish()
    return store


class FirstImages(FeatureStore):
    """The first images of a store, as a store of these alone would give them.

    Args:
      store: a whole one, of which no image was deleted.
      count: images.
      memory_megabytes: as of `FeatureStore`.
    """

    def __init__(self, store: FeatureStore, count: int, memory_megabytes: float) -> None:
        super().__init__(store.folder, memory_megabytes)
        self._count = count

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the images, in order."""
        return self.row_names()[: self._count]


def hardness(
    queries: FeatureStore,
    kinds: Mapping[str, Sequence[Features]],
    search: SearchSettings,
) -> dict[str, float]:
    """The mean similarity of the queries to their nearest tenth of several kinds of images."""
    count = search.max_features
    asked, found = queries.local_features(count), {}
    for name, images in kinds.items():
        if images:
            rows = alone(*images, count=count).local_features(count)
            opened = engines.exact(rows.descriptors, rows.mask, search.kernel)
            similarities = np.sort(opened(asked.descriptors, asked.mask), axis=1)
            found[name] = float(similarities[:, -max(1, len(images) // 10) :].mean())
    return found


def alone(*images: Features, count: int, encoding: str = "float32") -> InMemoryFeatures:
    """Images without a store; local features are padded to `count`, and encoded as in a store."""
    padded = []
    for image in images:
        assert image.local is not None
        fields = []
        for field in image.local:
            kept = np.asarray(field)[:count]
            empty = np.zeros((count - len(kept), *kept.shape[1:]), kept.dtype)
            fields.append(np.concatenate([kept, empty]))
        padded.append(image._replace(local=LocalFeatures(*fields)))
    return InMemoryFeatures(padded, encoding)
