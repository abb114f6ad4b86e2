"""Visual words: centres of k-means, in groups if there are many, so that few are compared.

Sivic, Zisserman, "Video Google", ICCV 2003. With many words, the nearest are looked for in the
groups whose centres are nearest, as in approximate k-means (Philbin et al., "Object retrieval with
large vocabularies and fast spatial matching", CVPR 2007).
"""

import dataclasses

import jax
import numpy as np

from delg_jax.search import kmeans
from delg_jax.search.batching import Rows, starts

Array = jax.Array | np.ndarray

_FLAT = 4096  # words without groups, at most
_GROUP_ROUNDS = 8  # of k-means of the words
_PROBED = 16  # groups looked into for the nearest word; two more for each word asked for
_SAMPLED = 32  # features per word in a round of k-means, about
_IMAGES = 64  # of the sample read at a time
# Features compared at a time, with all words or with those of groups: threads of a matrix product
# pay only for large ones
_FEATURES, _FEATURES_GROUPED = 2048, 16384


@dataclasses.dataclass(frozen=True)
class Codebook:
    """Visual words, sorted by group.

    Attributes:
      centres: float32 [C, D], unit norm.
      groups: float32 [G, D], the centre of each group; one group without many words.
      offsets: int64 [G + 1], the first word of each group.
    """

    centres: np.ndarray
    groups: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of words."""
        return len(self.centres)

    def nearest(self, features: np.ndarray, count: int = 1) -> np.ndarray:
        """The words of the largest inner products.

        With groups, words in far groups are missed: of the R50 features of ROxford and 65,536
        words, the nearest for few percent.

        Args:
          features: float [F, D].
          count: words of each feature, at most C.

        Returns:
          int32 [F, count], best first.
        """
        count = min(count, len(self))
        found = np.zeros((len(features), count), np.int32)
        block, search = _FEATURES_GROUPED, self._among_groups
        if len(self.groups) == 1:
            block, search = _FEATURES, self._among_all
        for start in starts(len(features), block):
            some = np.asarray(features[start : start + block], np.float32)
            found[start : start + block] = search(some, count)
        return found

    def _among_all(self, features: np.ndarray, count: int) -> np.ndarray:
        return _largest(features @ self.centres.T, count)[1]

    def _among_groups(self, features: np.ndarray, count: int) -> np.ndarray:
        probed = min(_PROBED + 2 * count, len(self.groups))
        products = features @ self.groups.T
        near = np.argpartition(-products, probed - 1, axis=1)[:, :probed].ravel()
        order = np.argsort(near.astype(np.uint16), kind="stable")
        edges = np.searchsorted(near[order], np.arange(len(self.groups) + 1))
        slots = np.full((len(features) * probed, count), -np.inf, np.float32)
        words = np.zeros(slots.shape, np.int32)
        for group in np.flatnonzero(np.diff(edges)):
            pairs = order[edges[group] : edges[group + 1]]
            part = slice(int(self.offsets[group]), int(self.offsets[group + 1]))
            if part.start == part.stop:
                continue
            values, best = _largest(features[pairs // probed] @ self.centres[part].T, count)
            slots[pairs, : values.shape[1]] = values
            words[pairs, : values.shape[1]] = best + part.start
        _, columns = _largest(slots.reshape(len(features), -1), count)
        return np.take_along_axis(words.reshape(len(features), -1), columns, axis=1)


def learn(descriptors: Rows, mask: Rows, count: int, rounds: int = 2, seed: int = 0) -> Codebook:
    """Learns visual words on images of a database drawn at random.

    Args:
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      mask: bool [N, K].
      count: words, C; at most as many as the features drawn.
      rounds: of k-means on about 32 C features, which are held in memory in half precision; 0 keeps
        the features drawn as words.
      seed: of the random choices.

    Returns:
      The words; none for a database without features.
    """
    features = _sample(descriptors, mask, _SAMPLED * count, seed)
    rng = np.random.default_rng([seed, 2])
    drawn = np.sort(rng.choice(len(features), min(count, len(features)), replace=False))
    found = grouped(features[drawn].astype(np.float32), seed)
    for _ in range(rounds if len(drawn) else 0):
        sums = np.zeros_like(found.centres)
        for start in starts(len(features), _FEATURES_GROUPED):
            some = features[start : start + _FEATURES_GROUPED].astype(np.float32)
            kmeans.add_to(sums, some, found.nearest(some)[:, 0])
        found = grouped(kmeans.directions(sums, found.centres), seed)
    return found


def grouped(centres: np.ndarray, seed: int = 0) -> Codebook:
    """The words of given centres float32 [C, D], in about sqrt(C) groups if there are many."""
    if len(centres) <= _FLAT:
        return Codebook(centres, centres[:1], np.array([0, len(centres)], np.int64))
    count = int(np.sqrt(len(centres)))
    one_each = centres[:, None, :], np.ones((len(centres), 1), bool)
    groups = kmeans.centres(*one_each, count, _GROUP_ROUNDS, seed)
    owners = kmeans.nearest(centres, groups)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))])
    order = np.argsort(owners, kind="stable")
    return Codebook(centres[order], groups, offsets.astype(np.int64))


def _sample(descriptors: Rows, mask: Rows, count: int, seed: int) -> np.ndarray:
    """About `count` features float16 [S, D] of images drawn at random; all if there are fewer."""
    order = np.random.default_rng(seed).permutation(len(mask))
    parts, found = [np.zeros((0, descriptors.shape[-1]), np.float16)], 0
    for start in range(0, len(order), _IMAGES):
        images = np.sort(order[start : start + _IMAGES])
        rows = np.asarray(descriptors[images])[np.asarray(mask[images])]
        parts.append(rows.astype(np.float16))
        found += len(rows)
        if found >= count:
            break
    return np.concatenate(parts)


def _largest(products: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest of each row [F, C], at most C: values and columns, largest first."""
    if count == 1:
        columns = products.argmax(axis=1)[:, None]
        return np.take_along_axis(products, columns, axis=1), columns
    count = min(count, products.shape[1])
    columns = np.argpartition(-products, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(products, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)
