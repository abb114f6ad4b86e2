"""Average precision of "both images show the same landmark" over verified pairs.

The protocol of DELG's Table 1 (section 4.1), on pairs of a query and a database image: positives
and negatives are drawn, and ranked by their number of inliers.
"""

import dataclasses
import math
from typing import NamedTuple

import ml_collections
import numpy as np
from scipy import sparse

from delg_jax.data.ground_truth import landmarks_of, protocol_sets
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2
from delg_jax.evaluation.significance import Interval, number_or_none
from delg_jax.features import Extracted
from delg_jax.features.experiment import has_local
from delg_jax.progress import Progress
from delg_jax.rerank import SpatialSettings
from delg_jax.retrieval import methods


class Pairs(NamedTuple):
    """Pairs of a query and a database image.

    Attributes:
      queries: int64 [P], index of the query, ascending.
      images: int64 [P], index of the database image.
      labels: bool [P], whether both show the same landmark.
    """

    queries: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for pairs in `config.eval` that cannot be verified."""
    for name in ("pairs", "negative_pairs"):
        if config.eval[name] < 0:
            raise UserError(f"config.eval.{name}", config.eval[name], "must not be negative")
    if config.eval.pairs and not has_local(config):
        rule = "must be 0 without local features"
        raise UserError("config.eval.pairs", config.eval.pairs, rule)


def pair_average_precision(
    extracted: Extracted,
    settings: SpatialSettings,
    positives: int,
    negatives: int,
    seed: int,
) -> dict[str, int | float | None]:
    """Draws pairs, verifies them and scores their ranking by inliers.

    Args:
      extracted: features and ground truth; easy and hard images show the landmark of the query,
        junk ones are in no pair.
      settings: of verification; `min_inliers` is not applied, as it would only make ties.
      positives: number of pairs of the same landmark.
      negatives: number of pairs of different landmarks.
      seed: of all draws.

    Returns:
      `positives` and `negatives`; of these, `skipped_positives` and `skipped_negatives` have an
      image without local features; `average_precision` in percent (ties together) with its 95 %
      bootstrap interval over landmarks, `low` and `high` (None if there is only one). A skipped
      positive counts as not found.

    Raises:
      UserError: if there are fewer pairs than asked for.
    """
    drawn = draw(extracted.data.ground_truth, len(extracted.database), positives, negatives, seed)
    settings = dataclasses.replace(settings, min_inliers=0)
    images, queries = (part.present("local") for part in (extracted.database, extracted.queries))
    usable = images[drawn.images] & queries[drawn.queries]
    count_inliers = methods.inlier_counter(extracted, settings, seed)
    scores = np.zeros(len(drawn.images), np.int32)
    numbers, starts = np.unique(drawn.queries, return_index=True)
    groups = np.split(np.arange(len(scores)), starts[1:])
    with Progress("verification of pairs", len(numbers), "query") as progress:
        for number, group in zip(numbers, groups, strict=True):
            candidates = drawn.images[group]
            scores[group] = count_inliers(int(number), candidates)[candidates]
            progress.advance()
    landmarks = landmarks_of(extracted.data.ground_truth)[drawn.queries]
    over = interval(scores, drawn.labels, landmarks, seed=seed, found=usable)
    shares = {"average_precision": over.mean, "low": over.low, "high": over.high}
    percent = {name: number_or_none(100.0 * value) for name, value in shares.items()}
    sides = {"positives": drawn.labels, "negatives": ~drawn.labels}
    skipped = {f"skipped_{name}": int((side & ~usable).sum()) for name, side in sides.items()}
    return {"positives": positives, "negatives": negatives, **skipped, **percent}


def draw(ground_truth: list[dict], images: int, positives: int, negatives: int, seed: int) -> Pairs:
    """Draws pairs of a query and a database image without replacement.

    Args:
      ground_truth: for each query `easy` and `hard`, the images of its landmark, and `junk`.
      images: number of database images.
      positives: number of pairs of the same landmark.
      negatives: number of pairs of different landmarks.
      seed: of the draw.

    Returns:
      The pairs, by query.

    Raises:
      UserError: if there are fewer pairs of a kind.
    """
    same_codes, known_codes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, entry in enumerate(ground_truth):
        wanted, ignored = protocol_sets(entry, "medium")
        same_codes.append(number * images + wanted)
        known_codes.append(number * images + np.concatenate([wanted, ignored]))
    same, known = (np.unique(np.concatenate(codes)) for codes in (same_codes, known_codes))
    others = len(ground_truth) * images - len(known)
    for field, asked, there in (
        ("config.eval.pairs", positives, len(same)),
        ("config.eval.negative_pairs", negatives, others),
    ):
        if not 1 <= asked <= there:
            raise UserError(field, asked, f"must be from 1 to {there}, the pairs that there are")
    rng = np.random.default_rng(seed)
    right = rng.choice(same, positives, replace=False)
    # The n-th unknown pair follows all known pairs that have at most n unknown ones before them
    ranks = rng.choice(others, negatives, replace=False)
    wrong = ranks + np.searchsorted(known - np.arange(len(known)), ranks, side="right")
    codes = np.concatenate([right, wrong])
    order = np.argsort(codes)
    labels = np.arange(len(codes)) < positives
    return Pairs(codes[order] // images, codes[order] % images, labels[order])


def interval(
    scores: np.ndarray,
    labels: np.ndarray,
    landmarks: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    found: np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap interval of `gldv2.average_precision`, ties together.

    Pairs of one landmark are not independent: landmarks are drawn with replacement, each with all
    of its pairs. The protocol fixes the numbers of positives and negatives, so those drawn are
    weighted to them. A draw that lacks one of both has no value and is left out.

    Args:
      scores: int [P], larger is better.
      labels: bool [P], whether a pair is a positive; at least one of each kind.
      landmarks: int [P], the landmark of each pair; None if each pair shows its own.
      level: confidence level.
      resamples: number of times that the landmarks are drawn.
      seed: of the random numbers.
      found: bool [P], False for pairs that have no score: they are not in the ranking, and
        positives among them are not found; None if all have one.

    Returns:
      The average precision, a fraction, and its interval; bounds are NaN for a single landmark.
    """
    scores, labels = np.asarray(scores), np.asarray(labels, bool)
    found = np.ones(len(labels), bool) if found is None else found
    positives = int(labels.sum())
    mean = gldv2.average_precision(scores[found], labels[found], positives=positives)
    groups = np.arange(len(labels)) if landmarks is None else np.asarray(landmarks)
    numbers, groups = np.unique(groups, return_inverse=True)
    if len(numbers) == 1:
        return Interval(mean, math.nan, math.nan)
    values, bins = np.unique(-scores, return_inverse=True)
    bins = np.where(found, bins, len(values))  # a last bin, which is not ranked
    # Pairs of equal score are exchangeable, so counts by landmark and score say all
    shape = (len(numbers), len(values) + 1)
    right, wrong = (
        sparse.coo_array((side.astype(np.int64), (groups, bins)), shape).tocsr()
        for side in (labels, ~labels)
    )
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        draw = rng.integers(0, len(numbers), len(numbers))
        times = np.bincount(draw, minlength=len(numbers))
        hits, misses = times @ right, times @ wrong
        if hits.any() and misses.any():
            hits, misses = hits / hits.sum(), misses / misses.sum() * (~labels).sum() / positives
            ranks = np.cumsum(hits + misses)[:-1]
            precisions = np.cumsum(hits)[:-1] / np.where(ranks > 0, ranks, 1.0)
            drawn.append((hits[:-1] * precisions).sum())
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))
