"""Who may write a store: one job at a time, of the configuration that the store was made with."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.features.storage.lock import held_by_first
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.training import processes

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

    Raises:
      UserError: if another job writes the store, or it was made by another configuration.
    """
    extra = {"weights": weights}
    known = artefacts.is_of(folder, config, sections, extra)
    store = _whole(folder, config, names) if known else None
    if processes.agree(store is not None):  # before any of them changes it
        yield store
        return

    def claim() -> FeatureStore:
        """Opens the store and brings its images up to date."""
        store = artefacts.claim_usable(
            folder,
            config,
            sections,
            lambda: _open(folder, config, names, listing is not None),
            overwrite,
            extra,
        )
        if listing is not None:
            listing(store)
        return store

    with held_by_first(folder, claim) as store:
        if store is None:
            store = FeatureStore(folder, config.data.memory_megabytes, whole=False)
        yield store


def layout(settings: ml_collections.ConfigDict) -> Layout:
    """The arrays that the `config.extract` tree asks for."""
    return Layout(**{name: settings[name] for name in Layout._fields})


def _whole(
    folder: pathlib.Path, config: ml_collections.ConfigDict, names: Sequence[str]
) -> FeatureStore | None:
    """The store, if it is whole and of these images; what is wrong is for its writer to say."""
    try:
        store = FeatureStore(folder, config.data.memory_megabytes)
        return store if store.names == list(names) and not store.missing() else None
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
