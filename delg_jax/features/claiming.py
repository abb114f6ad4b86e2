"""Who may write a store: one job at a time, of the configuration that the store was made with."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.features.storage.lock import exclusive
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
      overwrite: whether a store of another configuration is deleted instead of refused.
      listing: changes the images of the store to `names`; None adds what is behind the last.

    Raises:
      UserError: if another job writes the store, or it was made by another configuration.
    """
    extra, memory = {"weights": weights}, config.data.memory_megabytes
    if artefacts.is_of(folder, config, sections, extra) and (folder / "store.json").is_file():
        store = FeatureStore(folder, memory, whole=False)
        if store.is_whole() and store.names == list(names):
            yield store
            return
    with _one_job(folder):
        with processes.first_before_others(f"{folder}: claimed"):
            artefacts.claim(folder, config, sections, overwrite, extra)
            if listing is None:
                store = FeatureStore.prepare(folder, names, layout(config.extract), memory)
            else:
                store = FeatureStore.open_or_make(folder, layout(config.extract), memory)
                listing(store)
        yield store


def layout(settings: ml_collections.ConfigDict) -> Layout:
    """The arrays that the `config.extract` tree asks for."""
    return Layout(**{name: settings[name] for name in Layout._fields})


@contextlib.contextmanager
def _one_job(folder: pathlib.Path) -> Iterator[None]:
    """Lets the first process of a job take the lock; the others learn whether it did."""
    with contextlib.ExitStack() as stack:
        refusal = None
        if processes.is_first():
            try:
                stack.enter_context(exclusive(folder))
            except UserError as error:
                refusal = error
        if not processes.agree(refusal is None):
            raise refusal or UserError("feature store", str(folder), "was refused to process 0")
        yield
