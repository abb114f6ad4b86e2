"""Local search with an inverted file: descriptors sorted by their nearest k-means centre.

Jegou, Douze, Schmid, "Product quantization for nearest neighbor search", PAMI 2011, without the
quantization. A cell is the list of one centre. A query feature is compared with the descriptors
in its nearest cells only; apart from the matches that this misses, the similarity is that of
`local_search`.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from delg_jax.errors import require_least
from delg_jax.search import kmeans
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.index_checks import (
    require_counts,
    require_dimension,
    require_images,
    require_offsets,
)
from delg_jax.search.kernels import SimilarityKernel

Array = jax.Array | np.ndarray

_PRODUCTS = 1 << 25  # of query features with descriptors, about, whose hits are in memory
_FEATURES = 256  # compared with all centres at a time
_FEWEST_VOTES = 256  # computed at a time: shorter lists are padded
_RANKED = 24  # fewest sampled centres to rank when estimating how near a cell must be


@dataclasses.dataclass(frozen=True)
class IvfSettings:
    """What decides the cells.

    Attributes:
      count: cells, C; at most as many as there are features.
      seed: of the initial centres.
      rounds: of k-means, see `kmeans.centres`.
    """

    count: int = 1000
    seed: int = 0
    rounds: int = 2

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        require_least(self, 1, "count")
        require_least(self, 0, "seed", "rounds")


@dataclasses.dataclass(frozen=True)
class IvfIndex:
    """The features of a database, sorted by cell, then image.

    Attributes:
      settings: of the cells.
      dimension: of the descriptors, D.
      count: images, N.
      centres: float32 [C, D].
      descriptors: float16 [E, D].
      images: int32 [E].
      offsets: int64 [C + 1], the start of each cell.
    """

    settings: IvfSettings
    dimension: int
    count: int
    centres: np.ndarray
    descriptors: np.ndarray
    images: np.ndarray
    offsets: np.ndarray

    def check(self) -> None:
        """Raises a ValueError if the arrays do not fit together."""
        require_counts(dimension=self.dimension, count=self.count)
        require_offsets(self.offsets, len(self.centres), len(self.images))
        require_images(self.images, self.count)
        if self.centres.shape[1:] != (self.dimension,):
            raise ValueError(f"centres have shape {self.centres.shape}")
        if self.descriptors.shape != (len(self.images), self.dimension):
            raise ValueError(f"descriptors have shape {self.descriptors.shape}")


def build(descriptors: Array, mask: Array, settings: IvfSettings, block: int = 256) -> IvfIndex:
    """Builds the index of a database.

    Args:
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      mask: bool [N, K].
      settings: of the cells.
      block: images read at a time.

    Returns:
      The index; its descriptors are in memory, in half precision.

    Raises:
      ValueError: if `block` is not positive.
    """
    present = np.asarray(mask)
    centres = kmeans.centres(descriptors, present, settings.count, settings.rounds, settings.seed)
    count, features, dimension = descriptors.shape
    block = min(block, max(count, 1))
    found, values = [np.zeros(0, np.int64)], [np.zeros((0, dimension), np.float16)]
    for start in starts(count if len(centres) else 0, block):
        rows = padded_rows(descriptors, start, block).reshape(block * features, dimension)
        used = np.flatnonzero(padded_rows(present, start, block))
        found.append(kmeans.nearest(rows[used], centres))
        values.append(rows[used].astype(np.float16))
    cells = np.concatenate(found)
    order = np.argsort(cells, kind="stable")
    images = np.flatnonzero(present) // max(features, 1)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(centres)))])
    return IvfIndex(
        settings,
        dimension,
        count,
        centres,
        np.concatenate(values)[order],
        images[order].astype(np.int32),
        offsets.astype(np.int64),
    )


class _Hits(NamedTuple):
    """Best cosines of query features with images, sorted by feature, then image.

    Attributes:
      features: int64 [H].
      images: int64 [H].
      cosines: float32 [H], of the best descriptor of the image in the probed cells.
    """

    features: np.ndarray
    images: np.ndarray
    cosines: np.ndarray


def similarity(
    index: IvfIndex,
    queries: Array,
    query_mask: Array,
    kernel: SimilarityKernel,
    probes: int,
    idf: bool = False,
) -> np.ndarray:
    """Similarity of every query to every image, by the matches in the nearest cells.

    Memory holds the result, the hits of about 2^25 products, and the products of one cell with the
    query features that probe it.

    Args:
      index: of N images.
      queries: float [Q, Kq, D], unit norm; with more at a time, each cell is read less often.
      query_mask: bool [Q, Kq], False on padding.
      kernel: k; a feature has no vote for an image without a descriptor in the probed cells.
      probes: cells compared with a query feature, on average: if there are many, how near a cell
        must be is estimated on a sample of the centres. With all cells, the result is exact.
      idf: whether votes are weighted by log(N / df) / log(N), as by `local_search.idf_weights`,
        where df is the number of images that get a positive vote from the feature, at least 1.

    Returns:
      float32 [Q, N].

    Raises:
      ValueError: if the dimensions differ or `probes` is not positive.
    """
    require_dimension("queries", queries, index.dimension)
    if probes < 1:
        raise ValueError(f"`probes` (={probes}) must be at least 1")
    valid = np.asarray(query_mask, bool)
    result = np.zeros((len(valid), index.count), np.float32)
    probes = min(probes, len(index.centres))
    if not result.size or not probes or not valid.any():
        return result
    features = np.asarray(queries, np.float32).reshape(-1, index.dimension)[valid.ravel()]
    query_of = np.repeat(np.arange(len(valid)), valid.sum(axis=1))
    for part in _parts(query_of, probes * len(index.images) / len(index.centres)):
        hits = _hits(index, features[part], probes, kernel.least)
        votes = _votes(kernel, hits.cosines)
        if idf and index.count > 1:
            votes = votes * _weights(hits, votes, len(features[part]), index.count)
        first = query_of[part.start]
        rows = query_of[part][hits.features] - first
        count = query_of[part][-1] - first + 1
        sums = np.bincount(rows * index.count + hits.images, votes, count * index.count)
        result[first : first + count] += sums.reshape(count, index.count)
    return result / np.maximum(valid.sum(axis=1), 1)[:, None].astype(np.float32)


def _parts(query_of: np.ndarray, products: float) -> list[slice]:
    """Slices of the query features [F] with about `_PRODUCTS` products each."""
    step = max(1, int(_PRODUCTS / max(products, 1.0)))
    return [slice(start, start + step) for start in range(0, len(query_of), step)]


def _hits(index: IvfIndex, features: np.ndarray, probes: int, least: float) -> _Hits:
    """Hits of features [F, D] with a cosine above `least`."""
    probing, edges = _probing_features(features, index.centres, probes)
    codes, cosines = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for cell in np.flatnonzero((np.diff(edges) > 0) & (np.diff(index.offsets) > 0)):
        rows = probing[edges[cell] : edges[cell + 1]]
        part = slice(int(index.offsets[cell]), int(index.offsets[cell + 1]))
        products = features[rows] @ index.descriptors[part].astype(np.float32).T
        near = np.flatnonzero(products > least)
        row, column = np.divmod(near, products.shape[1])
        codes.append(rows[row] * index.count + index.images[part][column])
        cosines.append(products.ravel()[near])
    code, cosine = np.concatenate(codes), np.concatenate(cosines)
    order = np.argsort(code, kind="stable")
    code, cosine = code[order], cosine[order]
    firsts = np.flatnonzero(np.diff(code, prepend=-1))
    best = np.maximum.reduceat(cosine, firsts) if len(firsts) else cosine
    return _Hits(*np.divmod(code[firsts], index.count), best)


def _weights(hits: _Hits, votes: np.ndarray, features: int, count: int) -> np.ndarray:
    """Inverse document frequency of the feature of each hit, float64 [H]."""
    frequency = np.bincount(hits.features[votes > 0], minlength=features)
    weights = np.log(count / np.maximum(frequency, 1)) / np.log(count)
    return weights[hits.features]


def _probing_features(
    features: np.ndarray, centres: np.ndarray, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features that probe each cell: their rows [P], cell by cell, and the start of each cell."""
    count = len(centres)
    # The least product of a probed cell is estimated on every few centres: to rank all is slow
    step = 1 if probes == count else max(1, probes // _RANKED)
    sampled = -(-count // step)
    edge = sampled - min(probes // step, sampled)
    rows, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(features), _FEATURES):
        products = features[start : start + _FEATURES] @ centres.T
        least = np.partition(products[:, ::step], edge, axis=1)[:, edge]
        row, cell = np.divmod(np.flatnonzero(products >= least[:, None]), count)
        rows.append(start + row)
        found.append(cell)
    # NumPy radix-sorts integers of 16 bits, which is several times faster
    cells = np.concatenate(found).astype(np.min_scalar_type(count))
    edges = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=count))])
    return np.concatenate(rows)[np.argsort(cells, kind="stable")], edges


def _votes(kernel: SimilarityKernel, cosines: np.ndarray) -> np.ndarray:
    """Votes of cosines [P], padded to a power of 2 so that few shapes are compiled."""
    length = max(1 << (len(cosines) - 1).bit_length(), _FEWEST_VOTES)
    padded = jax.device_put(np.pad(cosines, (0, length - len(cosines))))
    return np.asarray(kernel(padded))[: len(cosines)]
