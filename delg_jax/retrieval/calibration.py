"""How many wrong images of a search have, by chance, as many inliers as one that was found.

RANSAC finds inliers in every pair of images: the more features, the more of them. How many, depends
on the network, the settings and the photographs, so that it is learned from pairs of images of the
database which show different things. Their inliers are kept in the workdir. The more images are
searched, the more the best wrong one has, so that levels count the wrong images of a whole search,
as the E-values of sequence search do (Karlin and Altschul, PNAS 1990).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Self

import jax
import numpy as np

from delg_jax import json_files
from delg_jax import workdir as outputs
from delg_jax.features import LocalFeatures
from delg_jax.features.in_memory import CachedFeatures
from delg_jax.progress import Progress
from delg_jax.rerank import SpatialSettings, spatial_verification

# Wrong images that reach a level by chance in one search of the whole database: one in a thousand
# searches has one that is called `strong`, one in ten one that is `weak` or better
LEVELS = {"strong": 1e-3, "weak": 1e-1}
CHANCE = "chance"  # the level below
LEAST_PAIRS = 40  # fewer tell nothing about rare counts

_GROUPS = 4  # of pairs by number of features, to see how inliers grow with them
_BULK = 0.8  # share of the pairs that are counted; the tail is above

FOLDER = "calibration"
# Strongest features that the image in the role of the query keeps: queries may be small parts
SHARES = (1.0, 0.5, 0.25, 0.125)
QUERIES = 6  # of each share
IMAGES = 10  # that each of them is compared with
_SAMPLE = 1000  # images of a large database, whose descriptors are read

_FILE = "inliers.json"
_SUBJECT, _REMEDY = "calibration", "delete the folder to measure it again"
_FIELDS = json_files.fields(
    {
        "source": json_files.text,
        "features": json_files.every(json_files.count),
        "inliers": json_files.every(json_files.count),
    }
)
# Fields of `config.rerank.sp` that no count depends on
_IDLE = ("short_list", "min_inliers", "score", "pair_block", "hamming")
# The fields that counts depend on, besides those of the features
DECIDING_FIELDS = (
    "seed",
    *(f"rerank.sp.{f.name}" for f in dataclasses.fields(SpatialSettings) if f.name not in _IDLE),
)


@dataclasses.dataclass(frozen=True)
class ChanceModel:
    """Inliers of pairs of images that show different things.

    The tail, the fifth of the pairs with the most inliers, begins at a number that grows with the
    logarithm of the features. The excess over it hardly depends on them, and is taken as
    exponentially distributed, as that of maxima over many hypotheses. Its scale is learned from its
    median, which a few pairs that show the same place after all hardly move.

    Attributes:
      base: inliers of a query with one feature, at which the tail begins.
      slope: further ones each time the features double.
      share: of the pairs in the tail, above 0.
      scale: of the tail, in inliers.
    """

    base: float
    slope: float
    share: float
    scale: float

    @classmethod
    def fit(cls, features: np.ndarray, inliers: np.ndarray) -> Self | None:
        """Learns from pairs that show different things.

        Args:
          features: int [P], of the image that takes the role of the query.
          inliers: int [P], of each pair, without a minimum.

        Returns:
          The model; None for fewer than `LEAST_PAIRS` pairs.
        """
        if len(features) < LEAST_PAIRS:
            return None
        order = np.argsort(features, kind="stable")
        doublings = np.log2(np.maximum(np.asarray(features, np.float64), 1.0))
        inliers = np.asarray(inliers, np.float64)
        groups = np.array_split(order, _GROUPS)
        sizes = np.array([doublings[group].mean() for group in groups])
        begins = np.array([np.quantile(inliers[group], _BULK) for group in groups])
        spread = ((sizes - sizes.mean()) ** 2).sum()
        slope = ((sizes - sizes.mean()) * begins).sum() / spread if spread else 0.0
        slope = max(float(slope), 0.0)
        base = float(begins.mean() - slope * sizes.mean())
        excesses = inliers - np.maximum(base + slope * doublings, 0.0)
        above = excesses[excesses > 0]
        median = float(np.median(above)) if above.size else 0.0
        scale = max(median / math.log(2), 1.0)  # where all are alike, the next is one more
        return cls(base, slope, (above.size + 1) / (len(features) + 1), scale)

    def least(self, features: float, images: int) -> dict[str, int]:
        """The least number of inliers that reaches each of `LEVELS`.

        Args:
          features: of the query.
          images: that are searched.
        """
        begin = max(self.base + self.slope * math.log2(max(features, 1)), 0.0)
        # Of a search, in the tail, which is above its beginning
        wrong = self.share * max(images, 1)
        excesses = {
            level: self.scale * max(math.log(wrong / most), 0.0) for level, most in LEVELS.items()
        }
        least = math.floor(begin) + 1
        return {level: max(math.ceil(begin + excess), least) for level, excess in excesses.items()}


def levels(inliers: Sequence[int], least: Mapping[str, int]) -> list[str]:
    """The level of each count: `strong`, `weak` or `chance`.

    Args:
      inliers: of images that were verified.
      least: result of `ChanceModel.least`.
    """
    return [
        next((level for level, count in least.items() if found >= count), CHANCE)
        for found in inliers
    ]


def wrong_pairs(
    database: CachedFeatures, settings: SpatialSettings, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Verifies pairs of database images that show different things, as far as one can know.

    An image is paired with some of the half that is least similar to it by global descriptors.

    Args:
      database: its features.
      settings: of spatial verification.
      seed: of the draws.

    Returns:
      Features of the image in the role of the query, and inliers, both int32 [P]; P is a fixed
      number, or less if there are few images.
    """
    rng = np.random.default_rng(seed)
    images = np.flatnonzero(database.present("local"))
    if len(images) > _SAMPLE:
        images = np.sort(rng.choice(images, _SAMPLE, replace=False))
    local, key = database.local_features(settings.max_features), jax.random.key(seed)
    pairs: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int32), np.zeros(0, np.int32))]
    drawn = np.resize(rng.permutation(images), QUERIES * len(SHARES) if len(images) > 1 else 0)
    with Progress("calibrate inliers", len(drawn), "photograph") as progress:
        for number, image in enumerate(drawn.tolist()):
            others = _unlike(database, image, images)
            others = np.sort(rng.choice(others, min(IMAGES, len(others)), replace=False))
            query = LocalFeatures(*(np.asarray(field[image]) for field in local))
            query = _strongest(query, SHARES[number % len(SHARES)])
            candidates = LocalFeatures(*(np.asarray(field[others]) for field in local))
            found = spatial_verification.count_inliers(query, candidates, others, key, settings)
            pairs.append((np.full(len(found), query.mask.sum(), np.int32), found))
            progress.advance()
    features, inliers = map(np.concatenate, zip(*pairs, strict=True))
    return features, inliers


def load_or_measure(
    output: outputs.Output,
    settings: SpatialSettings,
    seed: int,
    source: str,
    database: CachedFeatures,
) -> ChanceModel | None:
    """The model of wrong images; measured once for the features and the settings.

    Args:
      output: keeps what was measured, unless it is read-only.
      settings: of spatial verification.
      seed: of the draws.
      source: digest of the features.
      database: the features, which may be cached.

    Returns:
      The model; None if there are too few images.

    Raises:
      UserError: if what is stored is damaged.
    """
    folder, stored = output.folder, None
    if output.is_there():
        stored = json_files.read(folder / _FILE, _SUBJECT, _FIELDS, _REMEDY)
    if stored is not None and stored["source"] == source:
        return ChanceModel.fit(np.array(stored["features"]), np.array(stored["inliers"]))
    features, inliers = wrong_pairs(database, settings, seed)
    content = {"source": source, "features": features.tolist(), "inliers": inliers.tolist()}
    with outputs.where_writable(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / outputs.CONFIG_FILE).unlink(missing_ok=True)  # until its content is there
        outputs.write_json(folder / _FILE, content)
        output.describe()
    return ChanceModel.fit(features, inliers)


def _unlike(database: CachedFeatures, image: int, images: np.ndarray) -> np.ndarray:
    """The images that an image is paired with."""
    others = images[images != image]
    descriptors = database.global_descriptors()
    similarity = np.asarray(descriptors[others]) @ np.asarray(descriptors[image])
    return others[np.argsort(similarity, kind="stable")[: -(-len(others) // 2)]]


def _strongest(query: LocalFeatures, share: float) -> LocalFeatures:
    """The strongest features of an image; the others are masked, so that shapes stay the same."""
    mask = np.asarray(query.mask)
    scores = np.where(mask, query.scores, -np.inf)
    kept = np.argsort(-scores, kind="stable")[: int(np.ceil(share * mask.sum()))]
    return query._replace(mask=np.isin(np.arange(len(mask)), kept) & mask)
