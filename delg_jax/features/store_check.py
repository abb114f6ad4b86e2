"""`delg verify`: checks every chunk of a store against its checksum, and discards damaged ones."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorstore as ts

from delg_jax.errors import UserError
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.store import FeatureStore

_AHEAD = 4  # chunks that are read at a time


class Damage(NamedTuple):
    """A chunk that is missing or damaged.

    Attributes:
      array: name of its array in the store.
      rows: in the chunk.
      path: of the file.
      reason: one line.
    """

    array: str
    rows: range
    path: str
    reason: str


def verify(
    store: FeatureStore, progress: Callable[[int], object] | None = None
) -> Iterator[Damage]:
    """Reads all chunks of a store, a few at a time.

    Args:
      store: of which rows may be missing.
      progress: called with the number of bytes just read.

    Yields:
      Damage of each chunk that differs from its checksum, or is missing although the store is
      whole.

    Raises:
      UserError: if the metadata of an array is damaged.
    """
    whole = store.is_whole()
    for name, array in store.arrays():
        pending: deque[tuple[range, ts.Future]] = deque()
        for rows in _chunks(array):
            if not whole and not array.chunk_path(rows.start // array.chunk_rows).is_file():
                continue  # not written yet
            pending.append((rows, array.start_reading(slice(rows.start, rows.stop))))
            if len(pending) == _AHEAD:
                yield from _finish(name, array, *pending.popleft(), progress)
        while pending:
            yield from _finish(name, array, *pending.popleft(), progress)


def size(store: FeatureStore) -> int:
    """Bytes of all arrays of a store, decoded."""
    return sum(array.nbytes for _, array in store.arrays())


def repair(store: FeatureStore, damages: list[Damage]) -> int:
    """Deletes damaged chunks and marks their rows as missing, so that they are extracted again.

    Args:
      store: of which rows may be missing.
      damages: from `verify`.

    Returns:
      Number of missing rows.

    Raises:
      UserError: if names are damaged, which cannot be repaired.
    """
    for damage in damages:
        if damage.array.startswith("names"):
            rule = "holds names, which cannot be repaired; delg extract --overwrite starts again"
            raise UserError("feature store", damage.path, rule)
    # States first, because discarding another chunk reads the states
    for damage in sorted(damages, key=lambda damage: damage.array != "state"):
        store.discard(damage.array, damage.rows)
    return sum(len(run) for run in store.missing())


def _chunks(array: ChunkedArray) -> Iterator[range]:
    count, size = array.shape[0], array.chunk_rows
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _finish(
    name: str,
    array: ChunkedArray,
    rows: range,
    future: ts.Future,
    progress: Callable[[int], object] | None,
) -> Iterator[Damage]:
    try:
        values = array.finish_reading(future)
    except UserError as error:
        path = array.chunk_path(rows.start // array.chunk_rows)
        yield Damage(name, rows, str(path), error.rule)
        return
    if progress is not None:
        progress(values.nbytes)
