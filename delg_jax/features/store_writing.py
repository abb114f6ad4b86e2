"""Who may write a store: one job at a time, of the configuration that the store was made with."""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence

import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax import workdir as artefacts
from delg_jax.data import skips
from delg_jax.errors import UserError
from delg_jax.features.origins import Comparison, Origins, say
from delg_jax.features.pca import Pca, equal
from delg_jax.features.storage.lock import exclusive, held_by_first
from delg_jax.features.storage.rows import WRITTEN, Layout
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)

# Brings the images of an opened store up to date.
Listing = Callable[[FeatureStore], None]


@contextlib.contextmanager
def claimed(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    weights: str,
    names: Sequence[str],
    overwrite: bool = False,
    listing: Listing | None = None,
    origins: Origins | None = None,
    projection: Pca | None = None,
) -> Iterator[FeatureStore]:
    """Yields a store that this job alone may write; one that is whole is not locked.

    Args:
      folder: of the store.
      config: the whole tree.
      sections: prefixes of the fields that decide the features.
      weights: digest of what the features come from.
      names: of the images, in order.
      overwrite: whether a store of another configuration or of other images, or one that is
        damaged, is deleted instead of refused.
      listing: changes the images of the store to `names`; None adds what is behind the last.
      origins: the images as they are now: what the store has of others is missing afterwards.
      projection: that local descriptors must have gone through; None if the store decides it.

    Raises:
      UserError: if another job writes the store, it was made by another configuration, or its
        projection was fitted on images that have changed.
    """
    extra = {"weights": weights}
    known = artefacts.is_of(folder, config, sections, extra)
    store = _whole(folder, config, names, projection) if known else None
    found = _compare(store, origins) if store is not None else None
    if distributed.agree(
        store is not None and not _changed(found)
    ):  # before any of them changes it
        if found is not None:
            say(store, found)
            _note_if_possible(store, found)
        yield store
        return

    def use() -> FeatureStore:
        """Opens the store, unless its projection is of other images."""
        store = _open(folder, config, names, listing is not None)
        if (found := _compare(store, origins)) is not None:
            _require_projection(store, found)
        return store

    def claim() -> FeatureStore:
        """Opens the store and brings its images up to date."""
        store = artefacts.claim_usable(folder, config, sections, use, overwrite, extra)
        if listing is not None:
            listing(store)
        if (found := _compare(store, origins)) is not None:
            say(store, found)
            store.note_origins(found.noted, found.origins)
            if len(found.changed):
                store.forget(found.changed)
        _take(store, projection)
        return store

    with held_by_first(folder, claim) as store:
        if store is None:
            store = FeatureStore(folder, config.data.memory_megabytes, whole=False)
        yield store


def layout(settings: ml_collections.ConfigDict) -> Layout:
    """The arrays that the `config.extract` tree asks for."""
    return Layout(**{name: settings[name] for name in Layout._fields})


def _compare(store: FeatureStore, origins: Origins | None) -> Comparison | None:
    """What the first process finds changed; None in others, and where nothing is to be compared."""
    if origins is None or not distributed.is_first():
        return None
    return origins.compare(store)


def _changed(found: Comparison | None) -> bool:
    return found is not None and len(found.changed) > 0


def _note_if_possible(store: FeatureStore, found: Comparison) -> None:
    """Keeps new times of the same images, which saves reading them again, where that can be."""
    if not len(found.noted):
        return
    try:
        with exclusive(store.folder):
            if FeatureStore(store.folder).index == store.index:  # nobody wrote it meanwhile
                store.note_origins(found.noted, found.origins)
    except (UserError, OSError) as error:
        _LOG.info("%s: times of images are not noted: %s", store.folder, error)


def _require_projection(store: FeatureStore, found: Comparison) -> None:
    """Refuses a projection that was fitted on images that have changed since."""
    fitted = set(store.projection_names())
    if not fitted:
        return
    names = store.row_names()
    changed = [names[row] for row in found.changed if names[row] in fitted]
    if changed:
        rule = f"has a projection (pca.npz) that was fitted on images of which {len(changed)} have "
        rule += f"changed, first {changed[0]}; --overwrite fits it and extracts all images again"
        raise UserError("feature store", str(store.folder), rule)


def _take(store: FeatureStore, projection: Pca | None) -> None:
    """Makes all rows missing that another projection was applied to."""
    if projection is None or equal(store.read_pca(), projection):
        return
    written = np.flatnonzero(store.states() & WRITTEN)
    if len(written):
        text = "%s: the projection has changed, so that %d images are extracted again"
        _LOG.info(text, store.folder, len(written))
        store.forget(written)
    store.write_pca(projection)


def _whole(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    projection: Pca | None,
) -> FeatureStore | None:
    """The store, if it is whole and of these images; what is wrong is for its writer to say."""
    try:
        store = FeatureStore(folder, config.data.memory_megabytes)
        whole = store.names == list(names) and not store.missing()
        right = projection is None or equal(store.read_pca(), projection)
        return store if whole and right else None
    except UserError:
        return None


def _open(
    folder: pathlib.Path, config: ml_collections.ConfigDict, names: Sequence[str], listed: bool
) -> FeatureStore:
    """The store, new or that of before; with the images `names` unless another lists them."""
    wanted, memory = layout(config.extract), config.data.memory_megabytes
    if listed:
        store = FeatureStore.open_or_make(folder, wanted, memory)
    else:
        store = FeatureStore.prepare(folder, names, wanted, memory)
    store.row_names(), store.missing()  # damage shows here, where a new store helps
    return store


# Writes runs of rows; calls its second argument with the number of images done.
Work = Callable[[Sequence[range], Callable[..., None]], None]


def fill(store: FeatureStore, work: Work, title: str, max_skipped: int) -> FeatureStore:
    """Lets every process of the job write its share of what is missing.

    Args:
      store: prepared, the same in all processes.
      work: writes the runs it is given.
      title: of the progress bar.
      max_skipped: `config.data.max_skipped`.

    Returns:
      The store, whole.

    Raises:
      UserError: if more than `max_skipped` images could not be used.
    """
    runs = store.missing()
    with distributed.shared_out(str(store.folder), by_chunk(store, runs), store.finish) as chunks:
        mine = [run for chunk in chunks for run in chunk]
        images = sum(map(len, mine))
        if mine:
            done = len(store) - images if distributed.shard()[1] == 1 else 0
            with Progress(title, images + done, done=done) as progress:
                work(mine, progress.advance)
    store.reread()
    skips.report(store.folder, store.skipped(), max_skipped)
    return store


def by_chunk(store: FeatureStore, runs: Sequence[range]) -> list[list[range]]:
    """Runs that lie in one chunk together: only one process may write it."""
    chunks: dict[int, list[range]] = {}
    for run in runs:
        chunks.setdefault(run.start // store.layout.chunk_images, []).append(run)
    return list(chunks.values())
