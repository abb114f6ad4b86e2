"""How a store becomes whole: the missing runs are shared out, written, and summed up."""

from collections.abc import Callable, Sequence

from delg_jax.data import skips
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress
from delg_jax.training import processes

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
    with processes.shared_out(str(store.folder), by_chunk(store, runs), store.finish) as chunks:
        mine = [run for chunk in chunks for run in chunk]
        images = sum(map(len, mine))
        if mine:
            done = len(store) - images if processes.shard()[1] == 1 else 0
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
