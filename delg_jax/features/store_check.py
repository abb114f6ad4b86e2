"""Reads every chunk of a store against its checksum, and prepares what is damaged for repair."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from delg_jax.errors import UserError
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.store import FeatureStore

_AHEAD = 4  # chunks that are read at a time


class Damage(NamedTuple):
    """A chunk that cannot be read.

    Attributes:
      array: name of its array in the store.
      rows: that it holds.
      path: of its file.
      reason: in one line.
    """

    array: str
    rows: range
    path: str
    reason: str


def verify(
    store: FeatureStore, progress: Callable[[int], object] | None = None
) -> Iterator[Damage]:
    """Reads all chunks, a few at a time.

    Args:
      store: a whole one.
      progress: called with the bytes just read.

    Yields:
      Damage, of every chunk that is absent or differs from its checksum.

    Raises:
      UserError: if the description of an array is damaged.
    """
    for name, array in store.arrays():
        pending: deque = deque()
        for rows in _chunks(array):
            pending.append((rows, array.start_reading(slice(rows.start, rows.stop))))
            if len(pending) == _AHEAD:
                yield from _finish(name, array, *pending.popleft(), progress)
        while pending:
            yield from _finish(name, array, *pending.popleft(), progress)


def size(store: FeatureStore) -> int:
    """Bytes of all arrays of a store once they are decoded."""
    return sum(array.nbytes for _, array in store.arrays())


def repair(store: FeatureStore, damages: list[Damage]) -> int:
    """Deletes damaged chunks and marks their images as missing, so that extraction fills them.

    Args:
      store: a whole one.
      damages: what `verify` found.

    Returns:
      Number of rows that are now missing.

    Raises:
      UserError: if names are damaged, which nothing in the store can bring back.
    """
    for damage in damages:
        if damage.array.startswith("names"):
            rule = "holds names, which cannot be repaired; delg extract --overwrite starts again"
            raise UserError("feature store", damage.path, rule)
    # States first: what they are read from must not be needed after it is gone
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
    future: object,
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
