"""Local search within the cells of a Voronoi diagram of descriptors.

The centres are features of the database, drawn at random and moved by k-means, so that cells are
small where there are many descriptors (inverted lists: Jegou, Douze, Schmid, "Product quantization
for nearest neighbor search", PAMI 2011, without the quantization). A query feature is compared
with what lies in the cells nearest to it; the similarity is that of `local_search`, short of the
matches that it misses.
"""

import dataclasses

import jax
import numpy as np

from delg_jax.errors import WrongField
from delg_jax.search import kmeans
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.index_checks import require_counts, require_images, require_runs
from delg_jax.search.kernels import SimilarityKernel

Array = jax.Array | np.ndarray

_PAIRS = 1 << 25  # of query features and images whose best cosines are in memory
_ROWS = 256  # features compared with all centres at a time
_RANKED = 24  # centres, at least, by which it is told how near a cell must be


@dataclasses.dataclass(frozen=True)
class IvfSettings:
    """What decides the cells.

    Attributes:
      count: cells, C; at most as many as there are features.
      seed: of the draws of the centres.
      rounds: of k-means, see `centres.draw`.
    """

    count: int = 1000
    seed: int = 0
    rounds: int = 2

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if self.count < 1:
            raise WrongField("count", self.count, "must be at least 1")
        for name in ("seed", "rounds"):
            if getattr(self, name) < 0:
                raise WrongField(name, getattr(self, name), "must not be negative")


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
      offsets: int64 [C + 1], where each cell starts.
    """

    settings: IvfSettings
    dimension: int
    count: int
    centres: np.ndarray
    descriptors: np.ndarray
    images: np.ndarray
    offsets: np.ndarray

    def check(self) -> None:
        """Raises a ValueError if the parts do not fit together."""
        require_counts(dimension=self.dimension, count=self.count)
        require_runs(self.offsets, len(self.centres), len(self.images))
        require_images(self.images, self.count)
        if self.centres.shape[1:] != (self.dimension,):
            raise ValueError(f"centres of the shape {self.centres.shape}")
        if self.descriptors.shape != (len(self.images), self.dimension):
            raise ValueError(f"descriptors of the shape {self.descriptors.shape}")


def build(descriptors: Array, mask: Array, settings: IvfSettings, block: int = 256) -> IvfIndex:
    """Sorts the features of a database into cells.

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
    drawn = kmeans.draw(descriptors, present, settings.count, settings.rounds, settings.seed)
    return _filled(drawn, descriptors, present, settings, 0, block)


def append(index: IvfIndex, descriptors: Array, mask: Array, block: int = 256) -> IvfIndex:
    """A new index with further images in the cells of `index`, numbered on from its own.

    Args:
      index: of N images; it stays as it is.
      descriptors: float [M, K, D], unit norm.
      mask: bool [M, K].
      block: images read at a time.

    Returns:
      The index of N + M images.

    Raises:
      ValueError: if the dimensions differ, or `index` has no cells.
    """
    _check_dimension("descriptors", descriptors, index)
    if not len(index.centres):
        raise ValueError(f"`index` (={index.count} images) must have features to make cells of")
    new = _filled(index.centres, descriptors, np.asarray(mask), index.settings, index.count, block)
    cells = np.concatenate([_ivf(index), _ivf(new)])
    both = [
        np.concatenate([index.descriptors, new.descriptors]),
        np.concatenate([index.images, new.images]),
    ]
    order = np.argsort(cells, kind="stable")
    return dataclasses.replace(
        new, descriptors=both[0][order], images=both[1][order], offsets=index.offsets + new.offsets
    )


def similarity(
    index: IvfIndex, queries: Array, query_mask: Array, kernel: SimilarityKernel, probes: int
) -> np.ndarray:
    """Similarity of every query to every image, by the matches in the nearest cells.

    Memory holds the best cosines of 2^25 pairs of a query feature and an image, and the products
    of the query features that look into one cell with what is in it.

    Args:
      index: of N images.
      queries: float [Q, Kq, D], unit norm; the more at a time, the less often a cell is read.
      query_mask: bool [Q, Kq], False on padding.
      kernel: k; an image without a match in the cells gets no vote from a feature.
      probes: cells that a feature looks into, on the average: how near they must be is estimated
        from a part of the centres if these are many. All cells give the exact similarity.

    Returns:
      float32 [Q, N].

    Raises:
      ValueError: if the dimensions differ or `probes` is not positive.
    """
    _check_dimension("queries", queries, index)
    if probes < 1:
        raise ValueError(f"`probes` (={probes}) must be at least 1")
    valid = np.asarray(query_mask, bool)
    result = np.zeros((len(valid), index.count), np.float32)
    probes = min(probes, len(index.centres))
    if not result.size or not probes or not valid.any():
        return result
    features = np.asarray(queries, np.float32).reshape(-1, index.dimension)[valid.ravel()]
    owners = np.repeat(np.arange(len(valid)), valid.sum(axis=1))
    step = max(1, _PAIRS // index.count)
    for start in range(0, len(features), step):
        part = slice(start, start + step)
        best = _best(index, features[part], probes, kernel.least)
        row, image = np.divmod(np.flatnonzero(best > -np.inf), index.count)
        votes = _votes(kernel, best[row * index.count + image])
        places = owners[part][row] * index.count + image
        result += np.bincount(places, votes, result.size).reshape(result.shape)
    return result / np.maximum(valid.sum(axis=1), 1)[:, None].astype(np.float32)


def _best(index: IvfIndex, features: np.ndarray, probes: int, least: float) -> np.ndarray:
    """Best cosine above `least` of features [F, D] in each image, [F N]; else minus infinity."""
    asking, edges = _asking(features, index.centres, probes)
    best = np.full(len(features) * index.count, -np.inf, np.float32)

    for cell in np.flatnonzero((np.diff(edges) > 0) & (np.diff(index.offsets) > 0)):
        rows = asking[edges[cell] : edges[cell + 1]]
        part = slice(int(index.offsets[cell]), int(index.offsets[cell + 1]))
        products = features[rows] @ index.descriptors[part].astype(np.float32).T
        near = np.flatnonzero(products > least)
        row, column = np.divmod(near, products.shape[1])
        codes = rows[row] * index.count + index.images[part][column]
        np.maximum.at(best, codes, products.ravel()[near])
    return best


def _asking(features: np.ndarray, points: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that look into each cell: their rows [P], cell by cell, and where each starts."""
    count = len(points)
    # How near the last must be is told from every few centres: to order all takes far longer
    step = 1 if probes == count else max(1, probes // _RANKED)
    sampled = -(-count // step)
    edge = sampled - min(probes // step, sampled)
    rows, cells = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(features), _ROWS):
        products = features[start : start + _ROWS] @ points.T
        enough = np.partition(products[:, ::step], edge, axis=1)[:, edge]
        row, cell = np.divmod(np.flatnonzero(products >= enough[:, None]), count)
        rows.append(start + row)
        cells.append(cell)
    # Numbers of 16 bits are sorted by digits, which is several times faster
    found = np.concatenate(cells).astype(np.min_scalar_type(count))
    edges = np.concatenate([[0], np.cumsum(np.bincount(found, minlength=count))])
    return np.concatenate(rows)[np.argsort(found, kind="stable")], edges


def _votes(kernel: SimilarityKernel, cosines: np.ndarray) -> np.ndarray:
    """Votes of cosines [P], computed at a length that is often met, so that it is compiled once."""
    length = 1 << max(len(cosines) - 1, 1).bit_length()
    return np.asarray(kernel(np.pad(cosines, (0, length - len(cosines)))))[: len(cosines)]


def _filled(
    points: np.ndarray,
    descriptors: Array,
    present: np.ndarray,
    settings: IvfSettings,
    first: int,
    block: int,
) -> IvfIndex:
    """The index of the cells of given centres over images that are numbered from `first` on."""
    count, features, dimension = descriptors.shape
    block = min(block, max(count, 1))
    cells, values = [np.zeros(0, np.int64)], [np.zeros((0, dimension), np.float16)]
    for start in starts(count if len(points) else 0, block):
        rows = padded_rows(descriptors, start, block).reshape(block * features, dimension)
        used = np.flatnonzero(padded_rows(present, start, block))
        cells.append(kmeans.nearest(rows[used], points))
        values.append(rows[used].astype(np.float16))
    cells = np.concatenate(cells)
    order = np.argsort(cells, kind="stable")
    owners = first + np.flatnonzero(present) // max(features, 1)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(points)))])
    return IvfIndex(
        settings,
        dimension,
        first + count,
        points,
        np.concatenate(values)[order],
        owners[order].astype(np.int32),
        offsets.astype(np.int64),
    )


def _ivf(index: IvfIndex) -> np.ndarray:
    """The cell of each feature of the index."""
    return np.repeat(np.arange(len(index.centres)), np.diff(index.offsets))


def _check_dimension(name: str, descriptors: Array, index: IvfIndex) -> None:
    if descriptors.shape[-1] != index.dimension:
        raise ValueError(
            f"`{name}` (D={descriptors.shape[-1]}) must have the dimension of the index "
            f"(D={index.dimension})"
        )
