"""Local search with an inverted file of one-bit features: the selective match kernels.

Tolias, Avrithis, Jegou, "To aggregate or not to aggregate: selective match kernels for image
search", ICCV 2013, and "Image search with selective match kernels: aggregation across single and
multiple images", IJCV 2016. A feature is stored in the list of its nearest visual word, as the
signs of its difference from it. Features of an image in the same list are entries of their own
(SMK*), or one, the signs of their sum (ASMK*).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from delg_jax.errors import WrongField, require_least
from delg_jax.search.batching import Rows, read_ahead
from delg_jax.search.index_checks import require_dimension, require_offsets
from delg_jax.search.kmeans import Codebook, learn_words

Array = jax.Array | np.ndarray

IDF = ("none", "words", "hits")

_BLOCK = 256  # images read at a time
_SHORT = 512  # entries of a list; shorter lists are compared together
_TOGETHER = 2**20  # entries of short lists compared at a time
_CACHED = 2**15  # entries of a long list compared at a time
_MERGED = 2**22  # entries merged at a time, about
_BITS = 64  # of a word of a code


@dataclasses.dataclass(frozen=True)
class AsmkSettings:
    """What decides the entries.

    Attributes:
      words: visual words, C; at most as many as features are drawn for k-means.
      aggregate: whether the features of an image in the same list are one entry.
      rounds: of k-means, see `kmeans.learn_words`.
      seed: of the words.
    """

    words: int = 16_384
    aggregate: bool = False
    rounds: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if not 1 <= self.words <= 2**16:
            raise WrongField("words", self.words, f"must lie in [1, {2**16}]")
        require_least(self, 0, "rounds", "seed")


@dataclasses.dataclass(frozen=True)
class AsmkScoring:
    """How entries are compared with those of a query.

    Attributes:
      assignments: lists that a query feature is compared with, those of its nearest words.
      threshold: cosine tau of signs; entries below it have no vote.
      power: exponent alpha of the votes.
      idf: none; words, by the images in a list, squared (ASMK); hits, by the images that get a vote
        from a feature, log(N / df) / log(N).
      normalize: whether similarities are divided by the square root of the product of both images'
        similarities to themselves (ASMK).
    """

    assignments: int = 5
    threshold: float = 0.25
    power: float = 3.0
    idf: str = "hits"
    normalize: bool = False

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        require_least(self, 1, "assignments")
        if not 0 <= self.threshold < 1:
            raise WrongField("threshold", self.threshold, "must lie in [0, 1)")
        require_least(self, 0, "power")
        if self.idf not in IDF:
            raise WrongField("idf", self.idf, f"must be one of {', '.join(IDF)}")

    def votes(self, dimension: int) -> np.ndarray:
        """The vote of an entry by the number of signs that differ, float32 [D + 1], descending."""
        cosines = (dimension - 2.0 * np.arange(dimension + 1)) / dimension
        heard = (cosines > 0.0) & (cosines >= self.threshold)
        return np.where(heard, np.maximum(cosines, 0.0) ** self.power, 0.0).astype(np.float32)


class Entries(NamedTuple):
    """One-bit features of images or of a query.

    Attributes:
      words: int32 [E], whose list they belong to.
      owners: int32 [E], the images, or the features of the query.
      codes: uint64 [W, E], signs of differences from the word; W = ceil(D / 64).
    """

    words: np.ndarray
    owners: np.ndarray
    codes: np.ndarray


def _all_are_good(words: np.ndarray) -> None:
    """The lists of these words are as they were written."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The lists of some images, by word, then image.

    Attributes:
      count: images, n, numbered from 0.
      codes: uint64 [W, E].
      images: int32 [E].
      offsets: int64 [C + 1], the start of each list.
      frequency: int32 [C], images in each list.
      verify: raises a UserError if lists of some words on disk are damaged; called before they are
        read.
    """

    count: int
    codes: np.ndarray
    images: np.ndarray
    offsets: np.ndarray
    frequency: np.ndarray
    verify: Callable[[np.ndarray], None] = _all_are_good

    def check(self, words: int, width: int) -> None:
        """Raises a ValueError if the arrays do not fit together; reads no entries."""
        entries = len(self.images)
        require_offsets(self.offsets, words, entries)
        if self.codes.shape != (width, entries) or self.codes.dtype != np.uint64:
            raise ValueError(f"codes have dtype {self.codes.dtype} and shape {self.codes.shape}")
        if self.frequency.shape != (words,):
            raise ValueError(f"frequency has shape {self.frequency.shape}, for {words} lists")


@dataclasses.dataclass(frozen=True)
class AsmkIndex:
    """The lists of a database, of consecutive parts of its images.

    Attributes:
      settings: that it was built with.
      codebook: C words.
      parts: the first image of a part follows the last of the one before.
    """

    settings: AsmkSettings
    codebook: Codebook
    parts: Sequence[Part]
    _norms: dict[bool, np.ndarray] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def count(self) -> int:
        """Number of images, N."""
        return sum(part.count for part in self.parts)

    @property
    def dimension(self) -> int:
        """Dimension of the descriptors, D."""
        return self.codebook.centres.shape[1]

    def frequency(self) -> np.ndarray:
        """Images that have each word, int64 [C]."""
        none = np.zeros(len(self.codebook), np.int64)
        return sum((part.frequency for part in self.parts), none)

    def weights(self, idf: bool) -> np.ndarray:
        """The squared inverse document frequency of each word, float64 [C]; 1 without `idf`."""
        frequency = self.frequency()
        rarity = np.log(max(self.count, 1) / np.maximum(frequency, 1)) ** 2
        return np.where(frequency, rarity, 1.0) if idf else np.ones(len(frequency))

    def norms(self, idf: bool) -> np.ndarray:
        """Root of the sum of the weights of the words of each image, float64 [N].

        The first call reads all lists.
        """
        if idf not in self._norms:
            weights, found = self.weights(idf), [np.zeros(0)]
            for part in self.parts:
                sums = np.zeros(part.count)
                for words in _word_blocks([part]):
                    owners, images = _list_images(part, words)
                    first = _is_first(owners, images)
                    sums += np.bincount(images[first], weights[owners[first]], part.count)
                found.append(np.sqrt(sums))
            self._norms[idf] = np.concatenate(found)
        return self._norms[idf]


def encode(
    codebook: Codebook,
    features: np.ndarray,
    owners: np.ndarray,
    aggregate: bool,
    assignments: int = 1,
) -> Entries:
    """Assigns features to words, and keeps the signs of their differences from them.

    Args:
      codebook: at least one word.
      features: float [F, D].
      owners: int [F], the image of each, ascending.
      aggregate: whether the differences of the features of an owner with the same word are summed.
      assignments: words of each feature.

    Returns:
      Entries by owner; of equal owners by word if they are aggregated, else by feature.
    """
    words = codebook.nearest(features, assignments)
    owners = np.repeat(np.asarray(owners, np.int32), words.shape[1])
    differences = np.repeat(np.asarray(features, np.float32), words.shape[1], axis=0)
    words = words.ravel()
    differences -= codebook.centres[words]
    if aggregate and len(words):
        keys = owners.astype(np.int64) * len(codebook) + words
        order = np.argsort(keys, kind="stable")
        firsts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        differences = np.add.reduceat(differences[order], firsts, axis=0)
        words, owners = words[order[firsts]], owners[order[firsts]]
    return Entries(words, owners, packed_signs(differences))


def packed_signs(vectors: np.ndarray) -> np.ndarray:
    """Bits x > 0 of vectors float [E, D], as uint64 [ceil(D / 64), E]."""
    width = -(-vectors.shape[1] // _BITS)
    padded = np.zeros((len(vectors), 8 * width), np.uint8)
    signs = np.packbits(vectors > 0, axis=1)
    padded[:, : signs.shape[1]] = signs
    return np.ascontiguousarray(padded.view(np.uint64).T)


def build_part(
    codebook: Codebook,
    aggregate: bool,
    descriptors: Rows,
    mask: Rows,
    first: int = 0,
    stop: int | None = None,
    block: int = _BLOCK,
) -> Part:
    """The lists of some images of a database, in memory.

    Args:
      codebook: C words.
      aggregate: see `AsmkSettings`.
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      mask: bool [N, K].
      first: of the images.
      stop: after the last image; None for all.
      block: images read at a time.

    Returns:
      The part; image 0 is `first`.
    """
    stop = len(mask) if stop is None else stop
    count, width = stop - first, -(-descriptors.shape[-1] // _BITS)
    block = max(min(block, count), 1)
    none = np.zeros(0, np.int32)
    found = [Entries(none, none, np.zeros((width, 0), np.uint64))]
    firsts = range(first, stop, block) if len(codebook) else range(0)
    for start, (rows, present) in read_ahead((descriptors, mask), block, firsts):
        present = present[: stop - start]
        images = np.nonzero(present)[0] + start - first
        found.append(encode(codebook, rows[: len(present)][present], images, aggregate))
    words, images, codes = (np.concatenate(side, axis=-1) for side in zip(*found, strict=True))
    # NumPy radix-sorts integers of 16 bits
    order = np.argsort(words.astype(np.uint16), kind="stable")
    words, images = words[order], images[order]
    lengths = np.bincount(words, minlength=len(codebook))
    frequency = np.bincount(words[_is_first(words, images)], minlength=len(codebook))
    return Part(count, codes[:, order], images, _offsets(lengths), frequency.astype(np.int32))


def build(descriptors: Rows, mask: Rows, settings: AsmkSettings, block: int = _BLOCK) -> AsmkIndex:
    """Learns words and builds the index of a database in memory; `asmk_store` builds it on disk.

    Args:
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      mask: bool [N, K].
      settings: of the index.
      block: images read at a time.

    Returns:
      The index.
    """
    words = learn_words(descriptors, mask, settings.words, settings.rounds, settings.seed)
    part = build_part(words, settings.aggregate, descriptors, mask, block=block)
    return AsmkIndex(settings, words, [part])


Allocate = Callable[[str, tuple[int, ...], type], np.ndarray]


def _in_memory(_: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.zeros(shape, dtype)


def merge(
    parts: Sequence[Part],
    kept: Sequence[np.ndarray] | None = None,
    allocate: Allocate = _in_memory,
) -> Part:
    """One part with the images of several; memory holds few lists at a time.

    Args:
      parts: at least one, with the same words.
      kept: for each part bool [n], False for images to leave out; the others are numbered anew.
        None to keep all.
      allocate: makes the arrays `codes` and `images` from name, shape and dtype, for example as
        memory maps.

    Returns:
      The part.
    """
    if kept is None:
        kept = [np.ones(part.count, bool) for part in parts]
    numbers, count = [], 0
    for keep in kept:
        numbers.append(np.where(keep, np.cumsum(keep) - 1 + count, -1).astype(np.int32))
        count += int(keep.sum())
    words = len(parts[0].offsets) - 1
    lengths, frequency = np.zeros(words, np.int64), np.zeros(words, np.int32)
    blocks = list(_word_blocks(parts))
    for block in blocks:
        for part, number in zip(parts, numbers, strict=True):
            owners, images = _list_images(part, block)
            lengths += np.bincount(owners[number[images] >= 0], minlength=words)
    offsets = _offsets(lengths)
    codes = allocate("codes", (len(parts[0].codes), int(offsets[-1])), np.uint64)
    every_image = allocate("images", (int(offsets[-1]),), np.int32)
    for block in blocks:
        lists = []
        for part, number in zip(parts, numbers, strict=True):
            owners, images = _list_images(part, block)
            entries = slice(int(part.offsets[block.start]), int(part.offsets[block.stop]))
            left = number[images] >= 0
            lists.append(
                Entries(owners[left], number[images[left]], part.codes[:, entries][:, left])
            )
        owners, images, signs = (np.concatenate(side, axis=-1) for side in zip(*lists, strict=True))
        order = np.argsort(owners, kind="stable")
        place = slice(int(offsets[block.start]), int(offsets[block.stop]))
        codes[:, place], every_image[place] = signs[:, order], images[order]
        first = _is_first(owners[order], images[order])
        frequency += np.bincount(owners[order][first], minlength=words).astype(np.int32)
    return Part(count, codes, every_image, offsets, frequency)


def similarity(
    index: AsmkIndex, queries: Array, query_mask: Array, scoring: AsmkScoring
) -> np.ndarray:
    """Similarity of every query to every image.

    With entries of their own, the similarity is the mean over the query features of their best vote
    in an image, as that of `local_search` with the cosine of signs. Aggregated, it is the mean over
    the lists of the query of the vote of an image's entry, as in ASMK*.

    Args:
      index: of N images.
      queries: float [Q, Kq, D], unit norm.
      query_mask: bool [Q, Kq], False on padding.
      scoring: of entries.

    Returns:
      float32 [Q, N].

    Raises:
      ValueError: if the dimensions differ.
    """
    require_dimension("queries", queries, index.dimension)
    result = np.zeros((len(queries), index.count), np.float32)
    if not result.size or not len(index.codebook):
        return result
    weights = index.weights(scoring.idf == "words")
    norms = index.norms(scoring.idf == "words") if scoring.normalize else None
    votes = scoring.votes(index.dimension)
    for row, (query, valid) in enumerate(zip(np.asarray(queries), query_mask, strict=True)):
        features = query[np.asarray(valid, bool)]
        if len(features):
            result[row] = _one_query(index, features, scoring, votes, weights, norms)
    return result


def _one_query(
    index: AsmkIndex,
    features: np.ndarray,
    scoring: AsmkScoring,
    votes: np.ndarray,
    weights: np.ndarray,
    norms: np.ndarray | None,
) -> np.ndarray:
    """Similarities [N] of one query with features [F, D], at least one."""
    aggregate = index.settings.aggregate
    owners = np.zeros(len(features), np.int32) if aggregate else np.arange(len(features))
    entries = encode(index.codebook, features, owners, aggregate, scoring.assignments)
    if aggregate:  # each list of the query votes by itself
        entries = entries._replace(owners=np.arange(len(entries.words), dtype=np.int32))
    voters = len(entries.words) if aggregate else len(features)
    most = int((votes > 0.0).sum()) - 1
    found, first = [np.zeros((3, 0), np.int64)], 0
    for part in index.parts:
        rows, images, distances = _near(part, entries, most)
        found.append(np.stack([rows, images + first, distances]))
        first += part.count
    rows, images, distances = np.concatenate(found, axis=1)
    voting, voted = entries.owners[rows], votes[distances] * weights[entries.words[rows]]
    if not aggregate and len(rows):
        voting, images, voted = _best(voting, images, voted, index.count)
    if scoring.idf == "hits" and index.count > 1:
        frequency = np.bincount(voting, minlength=voters)
        rarity = np.log(index.count / np.maximum(frequency, 1)) / np.log(index.count)
        voted = voted * rarity[voting]
    sums = np.bincount(images, voted, index.count)
    if norms is None:
        return sums / voters
    own = np.sqrt(weights[np.unique(entries.words)].sum())
    return sums / np.maximum(own * norms, np.finfo(np.float32).tiny)


def _best(
    voting: np.ndarray, images: np.ndarray, voted: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best vote of each feature for each image, at least one, by feature, then image."""
    keys = voting * np.int64(count) + images
    order = np.argsort(keys)
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    return (*np.divmod(keys[firsts], count), np.maximum.reduceat(voted[order], firsts))


def _near(part: Part, entries: Entries, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a query's entry and one of its list that differ in few signs.

    Args:
      part: to search.
      entries: of the query.
      most: signs that may differ.

    Returns:
      Rows of the query's entries, images and numbers of signs that differ, int [H] each.
    """
    part.verify(entries.words)
    starts, stops = part.offsets[entries.words], part.offsets[entries.words + 1]
    lengths = stops - starts
    found = list(_near_in_short(part, entries.codes, starts, lengths, most))
    for row in np.flatnonzero(lengths > _SHORT).tolist():
        signs = entries.codes[:, row]
        for start in range(int(starts[row]), int(stops[row]), _CACHED):
            place = slice(start, min(start + _CACHED, int(stops[row])))
            distances = np.bitwise_count(part.codes[0, place] ^ signs[0])
            if len(signs) > 1:
                distances = distances.astype(np.min_scalar_type(_BITS * len(signs)))
                for plane, sign in zip(part.codes[1:, place], signs[1:], strict=True):
                    distances += np.bitwise_count(plane ^ sign)
            near = np.flatnonzero(distances <= most)
            found.append((np.full(len(near), row), part.images[place][near], distances[near]))
    none = np.zeros(0, np.int64)
    rows, images, distances = (
        np.concatenate([none, *side]) for side in (zip(*found, strict=True) if found else [()] * 3)
    )
    return rows, images, distances


def _near_in_short(
    part: Part, codes: np.ndarray, starts: np.ndarray, lengths: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `_near`, of the short lists, many at a time: a loop over them would take longer."""
    short = np.flatnonzero((lengths > 0) & (lengths <= _SHORT))
    cuts = np.flatnonzero(np.diff(np.cumsum(lengths[short]) // _TOGETHER)) + 1
    for rows in np.split(short, cuts) if len(short) else []:
        size = lengths[rows]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        places, owners = np.repeat(starts[rows], size) + within, np.repeat(rows, size)
        distances = np.zeros(len(places), np.int32)
        for plane, signs in zip(part.codes, codes, strict=True):
            distances += np.bitwise_count(plane[places] ^ signs[owners])
        near = np.flatnonzero(distances <= most)
        yield owners[near], part.images[places[near]], distances[near]


def _word_blocks(parts: Sequence[Part]) -> Iterator[slice]:
    """Consecutive words with about `_MERGED` entries in all parts together."""
    ends = np.sum([part.offsets for part in parts], axis=0)
    words, start = len(ends) - 1, 0
    while start < words:
        stop = int(np.searchsorted(ends, ends[start] + _MERGED, "right")) - 1
        stop = min(max(stop, start + 1), words)
        yield slice(start, stop)
        start = stop


def _list_images(part: Part, words: slice) -> tuple[np.ndarray, np.ndarray]:
    """The word and the image of each entry of consecutive words."""
    numbers = np.arange(words.start, words.stop)
    part.verify(numbers)
    ends = part.offsets[words.start : words.stop + 1]
    images = np.asarray(part.images[int(ends[0]) : int(ends[-1])])
    return np.repeat(numbers, np.diff(ends)), images


def _is_first(words: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Whether an entry is the first of its word and image, bool [E]; they are sorted by both."""
    new = np.ones(len(words), bool)
    new[1:] = (words[1:] != words[:-1]) | (images[1:] != images[:-1])
    return new


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
