"""Peak memory of each stage by number of images, each in its own process."""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from delg_jax.evaluation.cost import measured
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import spatial_verification
from delg_jax.rerank.spatial_verification import SpatialSettings
from delg_jax.search import SimilarityKernel, global_search, local_search

_TOP = 100  # images kept per query
_QUERIES = 4
_WRITTEN = 1024  # rows written at a time

Stage = Callable[..., float | None]  # from the number of images and sizes to megabytes


@dataclasses.dataclass(frozen=True)
class RowsOnDisk:
    """Rows of a raw file, read when they are indexed, like those of a feature store.

    Attributes:
      path: of the file.
      shape: [N, ...].
      dtype: of the numbers.
    """

    path: pathlib.Path
    shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Reads the rows of a slice of step 1."""
        start, stop, _ = rows.indices(len(self))
        count = max(stop - start, 0) * int(np.prod(self.shape[1:]))
        found = np.fromfile(self.path, self.dtype, count, offset=start * self.row_bytes)
        return found.reshape(-1, *self.shape[1:])


def measure(
    global_images: Sequence[int],
    local_images: Sequence[int],
    pairs: Sequence[int],
    dim: int,
    features: int,
    global_block: int,
    local_block: int,
    pair_block: int,
) -> list[dict[str, Any]]:
    """Runs each stage at each size.

    Args:
      global_images: numbers of images of the global search, which are on disk.
      local_images: numbers of images of the local search and the graph, which are on disk.
      pairs: numbers of candidates of spatial verification, whose features are already in memory.
      dim: of global descriptors; local ones have a quarter.
      features: of an image.
      global_block: `config.search.global_block`.
      local_block: `config.search.local_block`.
      pair_block: `config.rerank.sp.pair_block`.

    Returns:
      A row for each: `stage`, `bound` (the field that bounds memory, and its value), `images` and
      `megabytes` added to the process, None on systems other than Linux.
    """
    local = (dim // 4, features, local_block)
    plans: list[tuple[Stage, str, int, Sequence[int], tuple[int, ...]]] = [
        (global_stage, "search.global_block", global_block, global_images, (dim, global_block)),
        (local_stage, "search.local_block", local_block, local_images, local),
        (graph_stage, "search.graph_block", local_block, local_images, local),
        (verification_stage, "rerank.sp.pair_block", pair_block, pairs, (*local[:2], pair_block)),
    ]
    rows = []
    for stage, field, value, numbers, arguments in plans:
        for number in numbers:
            found = _in_new_process(stage, number, *arguments)
            name = stage.__name__.removesuffix("_stage")
            bound = f"{field}={value}"
            rows.append({"stage": name, "bound": bound, "images": number, "megabytes": found})
    return rows


def global_stage(images: int, dim: int, block: int) -> float | None:
    """Returns the megabytes of a global search of `images` on disk."""
    with tempfile.TemporaryDirectory() as folder:
        rows = _written(pathlib.Path(folder), (images, dim), np.float32)
        queries = rows[:_QUERIES]
        return _peak(lambda: global_search.search(queries, rows, _TOP, block))


def local_stage(images: int, dim: int, features: int, block: int) -> float | None:
    """Returns the megabytes of a local search of `images` on disk."""
    return _searched(images, dim, features, block, min(_QUERIES, images))


def graph_stage(images: int, dim: int, features: int, block: int) -> float | None:
    """Returns the megabytes of one chunk of the graph: a block of images against all."""
    return _searched(images, dim, features, block, min(block, images))


def verification_stage(pairs: int, dim: int, features: int, block: int) -> float | None:
    """Returns the megabytes of the verification of `pairs` candidates, without their features."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1000, (pairs, features, 2)).astype(np.float32)
    ones = np.ones((pairs, features), np.float32)
    vectors = rng.standard_normal((pairs, features, dim), np.float32)
    candidates = LocalFeatures(places, ones, ones, vectors, ones.astype(bool))
    query = LocalFeatures(*(field[0] for field in candidates))
    settings = SpatialSettings(pair_block=block)

    def verify() -> np.ndarray:
        ids, key = np.arange(pairs), jax.random.key(0)
        return spatial_verification.verify(query, candidates, ids, key, settings)

    return _peak(verify)


def _searched(images: int, dim: int, features: int, block: int, queries: int) -> float | None:
    with tempfile.TemporaryDirectory() as folder:
        rows = _written(pathlib.Path(folder), (images, features, dim), np.float16)
        query, mask = rows[:queries], np.ones((images, features), bool)
        kernel = SimilarityKernel("threshold", 0.5)
        given = query, mask[:queries], rows, mask, kernel, _TOP, block
        return _peak(lambda: local_search.best(*given))


def _peak(call: Callable[[], object]) -> float | None:
    with measured() as cost:
        call()
    return cost.megabytes


def _written(folder: pathlib.Path, shape: tuple[int, ...], dtype: Any) -> Any:
    """Writes random rows; returns `RowsOnDisk`, typed as the arrays that searches take."""
    rng, path = np.random.default_rng(0), folder / "rows"
    with path.open("wb") as file:
        for start in range(0, shape[0], _WRITTEN):
            part = (min(_WRITTEN, shape[0] - start), *shape[1:])
            file.write(rng.standard_normal(part, np.float32).astype(dtype).tobytes())
    return RowsOnDisk(path, shape, dtype)


def _in_new_process(stage: Stage, *arguments: int) -> float | None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(stage, *arguments).result()


SIZES = {
    "standard": {
        "global_images": (8_000, 32_000, 128_000),
        "local_images": (250, 1_000, 4_000),
        "pairs": (50, 200, 800),
        "dim": 512,
        "features": 200,
        "global_block": 4_096,
        "local_block": 32,
        "pair_block": 10,
    },
    "tiny": {
        "global_images": (64,),
        "local_images": (8,),
        "pairs": (3,),
        "dim": 32,
        "features": 8,
        "global_block": 16,
        "local_block": 4,
        "pair_block": 2,
    },
}
