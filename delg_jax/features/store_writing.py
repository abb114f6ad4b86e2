"""Opening a store for writing, by one job at a time, and filling its missing rows."""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from delg_jax import distributed, workdir
from delg_jax.data import skips
from delg_jax.errors import UserError
from delg_jax.features import origins
from delg_jax.features.origins import Comparison, CurrentImages
from delg_jax.features.pca import Pca, equal
from delg_jax.features.storage.rows import WRITTEN, Layout
from delg_jax.features.store import FeatureStore
from delg_jax.locks import exclusive, held_by_first
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def open_for_writing(
    output: workdir.Output,
    layout: Layout,
    memory: int,
    names: Sequence[str],
    overwrite: bool = False,
    update_images: Callable[[FeatureStore], None] | None = None,
    images: CurrentImages | None = None,
    projection: Pca | None = None,
    keep_projection: bool = False,
) -> Iterator[FeatureStore]:
    """Yields a store that only this job may write; a whole and current store is not locked.

    Args:
      output: the store.
      layout: of it.
      memory: megabytes of features that may be read into memory.
      names: of the images, in order.
      overwrite: whether a damaged store, or one of another configuration or other images, is
        deleted instead of refused.
      update_images: makes `names` the images of the store; None appends what the store lacks.
      images: the current images; rows extracted from other ones become missing.
      projection: that local descriptors must have gone through; None keeps that of the store.
      keep_projection: whether a projection is kept although images that it was fitted on have
        changed.

    Raises:
      UserError: if another job writes the store, it was made by another configuration, or its
        projection was fitted on images that have changed.
    """
    folder, in_order = output.folder, update_images is None
    known = output.is_there()
    store = _open_if_whole(folder, memory, names, projection, in_order) if known else None
    comparison = _compare(store, images) if store is not None else None
    current = store is not None and (comparison is None or not len(comparison.changed))
    # All processes must agree before one of them changes the store
    if distributed.agree(current, str(folder)) and store is not None:
        if comparison is not None:
            origins.log_changes(store, comparison)
        _complete_if_writable(store, comparison)
        yield store
        return

    def open_or_create() -> FeatureStore:
        """Opens the store; refuses a projection that was fitted on other images."""
        store = _open_or_create(folder, layout, memory, names, append=in_order)
        comparison = None if keep_projection else _compare(store, images)
        if comparison is not None:
            _require_projection_is_current(store, comparison)
        return store

    def claim() -> FeatureStore:
        """Opens the store and updates its images."""
        store = output.claim_usable(open_or_create, overwrite)
        if update_images is not None:
            update_images(store)
        if (comparison := _compare(store, images)) is not None:
            origins.log_changes(store, comparison)
            store.record_origins(comparison.same, comparison.origins)
            if len(comparison.changed):
                store.mark_missing(comparison.changed)
        _replace_projection(store, projection)
        return store

    with held_by_first(folder, claim) as store:
        if store is None:
            store = FeatureStore(folder, memory, whole=False)
        yield store


@contextlib.contextmanager
def missing_rows(
    store: FeatureStore, title: str, max_skipped: int
) -> Iterator[tuple[list[range], Callable[[int], None]]]:
    """Yields the missing rows that this process must write; at the end, the store is whole.

    Args:
      store: the same in all processes of the job.
      title: of the progress bar.
      max_skipped: `config.data.max_skipped`.

    Yields:
      Runs of rows, and a function to call with the number of images just written.

    Raises:
      UserError: if more than `max_skipped` images were skipped.
    """
    chunks = group_by_chunk(store, store.missing())
    with distributed.shared_out(str(store.folder), chunks, store.finish) as own_chunks:
        runs = [run for chunk in own_chunks for run in chunk]
        if runs:
            images = sum(map(len, runs))
            done = len(store) - images if distributed.shard()[1] == 1 else 0
            with Progress(title, images + done, done=done) as progress:
                yield runs, progress.advance
        else:
            yield [], lambda count: None
    store.reload()
    skips.report(store.folder, store.skipped(), max_skipped)


def group_by_chunk(store: FeatureStore, runs: Sequence[range]) -> list[list[range]]:
    """Groups runs by chunk, because only one process may write a chunk."""
    chunks: dict[int, list[range]] = {}
    for run in runs:
        chunks.setdefault(run.start // store.layout.chunk_images, []).append(run)
    return list(chunks.values())


def _open_if_whole(
    folder: pathlib.Path,
    memory: int,
    names: Sequence[str],
    projection: Pca | None,
    in_order: bool,
) -> FeatureStore | None:
    """The store if it is whole and has these images and projection; else None, never an error."""
    try:
        store = FeatureStore(folder, memory)
        same = store.names == list(names) if in_order else sorted(store.names) == sorted(names)
        whole = same and not store.missing()
        same_projection = projection is None or equal(store.read_pca(), projection)
        return store if whole and same_projection else None
    except UserError:
        return None


def _open_or_create(
    folder: pathlib.Path, layout: Layout, memory: int, names: Sequence[str], append: bool
) -> FeatureStore:
    """Opens or creates the store, and appends what it lacks of `names` if asked for."""
    if append:
        store = FeatureStore.prepare(folder, names, layout, memory)
    else:
        store = FeatureStore.open_or_make(folder, layout, memory)
    store.row_names(), store.missing()  # raises if damaged, while the store can be replaced
    return store


def _compare(store: FeatureStore, images: CurrentImages | None) -> Comparison | None:
    """What the first process finds changed; None in others and if there is nothing to compare."""
    if images is None or not distributed.is_first():
        return None
    return images.compare(store)


def _complete_if_writable(store: FeatureStore, comparison: Comparison | None) -> None:
    """Records what a whole store may lack, so that nobody needs to find it again.

    That is new times of unchanged images, and the digest after an interrupted deletion.
    """
    timed = comparison is not None and len(comparison.same)
    without_digest = store.index["deleted"] and not store.index["digest"]
    if not distributed.is_first() or not (timed or without_digest):
        return
    try:
        with exclusive(store.folder):
            if FeatureStore(store.folder).index == store.index:  # no other job has written it
                if comparison is not None:
                    store.record_origins(comparison.same, comparison.origins)
                if without_digest:
                    store.record_digest()
    except (UserError, OSError) as error:
        _LOG.info("%s: times of images are not recorded: %s", store.folder, error)


def _require_projection_is_current(store: FeatureStore, comparison: Comparison) -> None:
    """Refuses a projection that was fitted on images that have changed since."""
    fitted = set(store.projection_names())
    if not fitted:
        return
    names = store.row_names()
    changed = [names[row] for row in comparison.changed if names[row] in fitted]
    if changed:
        rule = f"has a projection (pca.npz) that was fitted on images of which {len(changed)} have "
        rule += f"changed, first {changed[0]}; --overwrite fits it and extracts all images again"
        raise UserError("feature store", str(store.folder), rule)


def _replace_projection(store: FeatureStore, projection: Pca | None) -> None:
    """Stores a projection; rows that another projection was applied to become missing."""
    if projection is None or equal(store.read_pca(), projection):
        return
    written = np.flatnonzero(store.states() & WRITTEN)
    if len(written):
        text = "%s: the projection has changed, extracting %d images again"
        _LOG.info(text, store.folder, len(written))
        store.mark_missing(written)
    store.write_pca(projection)
