"""Spherical k-means of descriptors, from features drawn at random; and visual words.

Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine
Learning 42, 2001.

Visual words (Sivic, Zisserman, "Video Google", ICCV 2003) are centres, too. With many, the nearest
are looked for in the groups whose centres are nearest, as in approximate k-means (Philbin et al.,
"Object retrieval with large vocabularies and fast spatial matching", CVPR 2007).
"""

import dataclasses

import jax
import numpy as np

from delg_jax.search.batching import Rows, starts

Array = jax.Array | np.ndarray

# Of the centres of an inverted file
_SAMPLED = 64  # features per centre in a round of k-means, about
_IMAGES = 32  # read at a time
_FEATURES = 1024  # compared with all centres at a time
# Of a codebook
_FLAT = 4096  # words without groups, at most
_GROUP_ROUNDS = 8  # of k-means of the words
_PROBED = 16  # groups looked into for the nearest word; two more for each word asked for
_SAMPLED_PER_WORD = 32  # features per word in a round of k-means, about
_SAMPLE_IMAGES = 64  # of the sample read at a time
# Features compared at a time, with all words or with those of groups: threads of a matrix product
# pay only for large ones
_WORD_FEATURES, _WORD_FEATURES_GROUPED = 2048, 16384


def centres(
    descriptors: Array, present: np.ndarray, count: int, rounds: int, seed: int
) -> np.ndarray:
    """Draws features of a database as centres and refines them by k-means.

    Args:
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      present: bool [N, K].
      count: centres, C; at most as many as there are features.
      rounds: of k-means, on about 64 C features of images drawn at random; 0 keeps the features
        drawn.
      seed: of the random choices.

    Returns:
      Unit vectors float32 [min(C, features), D].
    """
    places = np.flatnonzero(present)
    drawn = np.sort(
        np.random.default_rng(seed).choice(places, min(count, len(places)), replace=False)
    )
    image, feature = np.divmod(drawn, max(present.shape[1], 1))
    rows = [np.asarray(descriptors[i : i + 1])[0, f] for i, f in zip(image, feature, strict=True)]
    found = np.array(rows, np.float32).reshape(-1, descriptors.shape[2])
    sample = _sampled_images(present, len(found), seed)
    for _ in range(rounds if len(found) else 0):
        found = _updated(found, descriptors, present, sample)
    return found


def nearest(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre of the largest inner product; ties go to the lower index.

    Args:
      features: float [F, D].
      centres: float32 [C, D], at least one.

    Returns:
      int64 [F].
    """
    found = np.zeros(len(features), np.int64)
    for start in starts(len(features), _FEATURES):
        some = np.asarray(features[start : start + _FEATURES], np.float32)
        found[start : start + _FEATURES] = (some @ centres.T).argmax(axis=1)
    return found


def _sampled_images(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Images drawn at random, ascending, with about `_SAMPLED` features for each centre."""
    order = np.random.default_rng([seed, 1]).permutation(len(present))
    features = np.cumsum(present.sum(axis=1)[order])
    return np.sort(order[: np.searchsorted(features, _SAMPLED * count) + 1])


def _updated(
    centres: np.ndarray, descriptors: Array, present: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """The direction of the sum of the features nearest to each centre; without any, it stays."""
    sums = np.zeros_like(centres)
    for start in starts(len(images), _IMAGES):
        some = images[start : start + _IMAGES]
        rows = np.asarray(descriptors[some])[present[some]].astype(np.float32)
        if len(rows):
            _add_to(sums, rows, nearest(rows, centres))
    return _directions(sums, centres)


def _add_to(sums: np.ndarray, features: np.ndarray, cells: np.ndarray) -> None:
    """Adds features float32 [F, D], at least one, to the sums [C, D] of their cells int [F]."""
    order = np.argsort(cells, kind="stable")
    filled, firsts = np.unique(cells[order], return_index=True)
    sums[filled] += np.add.reduceat(features[order], firsts, axis=0)


def _directions(sums: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The sums [C, D] with unit norm; a centre [C, D] whose sum is 0 stays."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(norms > 0.0, sums / np.where(norms > 0.0, norms, 1.0), centres)


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
    _last: dict[tuple[int, bytes], np.ndarray] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
        # The features of a query are asked for twice, to find images and for their idf
        key = count, features.tobytes() if len(features) <= _WORD_FEATURES else b""
        if key[1] and (known := self._last.get(key)) is not None:
            return known
        found = np.zeros((len(features), count), np.int32)
        block, search = _WORD_FEATURES, self._among_all
        if len(self.groups) > 1:
            search = self._among_groups
            block = _WORD_FEATURES_GROUPED if count == 1 else _WORD_FEATURES
        for start in starts(len(features), block):
            some = np.asarray(features[start : start + block], np.float32)
            found[start : start + block] = search(some, count)
        if key[1]:
            self._last.clear()
            self._last[key] = found
        return found

    def _among_all(self, features: np.ndarray, count: int) -> np.ndarray:
        return _largest(features @ self.centres.T, count)[1]

    def _among_groups(self, features: np.ndarray, count: int) -> np.ndarray:
        probed = min(_PROBED + 2 * count, len(self.groups))
        near = np.argpartition(-(features @ self.groups.T), probed - 1, axis=1)[:, :probed]
        order = np.argsort(near.ravel().astype(np.uint16), kind="stable")
        edges = np.searchsorted(near.ravel()[order], np.arange(len(self.groups) + 1))
        # Of one word, the best of each group; of several, all products, because one selection among
        # all groups takes less time than one in each
        sizes = np.diff(self.offsets)
        width = 1 if count == 1 else int(sizes.max())
        products = np.full((len(features) * probed, width), -np.inf, np.float32)
        best = np.zeros(len(products), np.int32)
        for group in np.flatnonzero((np.diff(edges) > 0) & (sizes > 0)):
            pairs = order[edges[group] : edges[group + 1]]
            part = slice(int(self.offsets[group]), int(self.offsets[group + 1]))
            found = features[pairs // probed] @ self.centres[part].T
            if count == 1:
                best[pairs] = found.argmax(axis=1)
                products[pairs, 0] = found[np.arange(len(found)), best[pairs]]
            else:
                products[pairs, : found.shape[1]] = found
        _, columns = _largest(products.reshape(len(features), -1), count)
        slots, within = np.divmod(columns, width)
        if count == 1:
            within = np.take_along_axis(best.reshape(near.shape), slots, axis=1)
        found = self.offsets[np.take_along_axis(near, slots, axis=1)] + within
        return np.minimum(found, len(self) - 1)  # padding, if the groups have too few words


def learn_words(
    descriptors: Rows, mask: Rows, count: int, rounds: int = 2, seed: int = 0
) -> Codebook:
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
    features = _sample(descriptors, mask, _SAMPLED_PER_WORD * count, seed)
    rng = np.random.default_rng([seed, 2])
    drawn = np.sort(rng.choice(len(features), min(count, len(features)), replace=False))
    found = grouped(features[drawn].astype(np.float32), seed)
    for _ in range(rounds if len(drawn) else 0):
        sums = np.zeros_like(found.centres)
        for start in starts(len(features), _WORD_FEATURES_GROUPED):
            some = features[start : start + _WORD_FEATURES_GROUPED].astype(np.float32)
            _add_to(sums, some, found.nearest(some)[:, 0])
        found = grouped(_directions(sums, found.centres), seed)
    return found


def grouped(words: np.ndarray, seed: int = 0) -> Codebook:
    """The codebook of words float32 [C, D], in about sqrt(C) groups if there are many."""
    if len(words) <= _FLAT:
        return Codebook(words, words[:1], np.array([0, len(words)], np.int64))
    count = int(np.sqrt(len(words)))
    one_each = words[:, None, :], np.ones((len(words), 1), bool)
    groups = centres(*one_each, count, _GROUP_ROUNDS, seed)
    owners = nearest(words, groups)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))])
    order = np.argsort(owners, kind="stable")
    return Codebook(words[order], groups, offsets.astype(np.int64))


def _sample(descriptors: Rows, mask: Rows, count: int, seed: int) -> np.ndarray:
    """About `count` features float16 [S, D] of images drawn at random; all if there are fewer."""
    order = np.random.default_rng(seed).permutation(len(mask))
    parts, found = [np.zeros((0, descriptors.shape[-1]), np.float16)], 0
    for start in range(0, len(order), _SAMPLE_IMAGES):
        images = np.sort(order[start : start + _SAMPLE_IMAGES])
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
