"""What decides an inlier count, and what is made of it."""

import dataclasses
import functools

from delg_jax.errors import WrongField
from delg_jax.rerank.ransac import Options
from delg_jax.search.binary import HAMMING

SCORES = ("inliers", "combined")


@dataclasses.dataclass(frozen=True)
class SpatialSettings:
    """Settings of spatial verification; the same names as in the configuration.

    Attributes:
      max_features: strongest features of an image that take part; 0 = all.
      max_distance: L2 distance between unit descriptors that a match stays below.
      ratio: Lowe's ratio; 0 = no ratio test.
      mutual: keep mutual nearest neighbours only.
      one_bit: match the signs of descriptors only (DELG*); `max_distance` is then that of vectors
        of +-1 / sqrt(D). Descriptors that are packed signs already are matched as such anyway.
      hamming: how signs are compared, one of `binary.HAMMING`; changes no number.
      hypotheses: transformations tried per pair.
      residual: pixels; inliers lie strictly nearer, in the query image.
      model: affine, similarity or homography.
      scoring: inliers or msac, decides which hypothesis is the best.
      local_optimization: whether the best hypotheses are refitted to their inliers.
      guided: hypotheses from single matches and their sizes, not from random samples.
      min_inliers: fewer count as none. Of 1000 random matches between squares of 1000 pixels, the
        best of 1000 affine hypotheses has 8 inliers in the median and never had more than 12 in
        10,000 random pairs (`experiments.bench_ransac`); the official code asks for 4.
      score: what a short list is sorted by, see `spatial_verification.rerank`.
      pair_block: image pairs verified at a time on each device; bounds memory, never changes a
        count.
    """

    max_features: int = 1000
    max_distance: float = 1.0
    ratio: float = 0.0
    mutual: bool = False
    one_bit: bool = False
    hamming: str = "popcount"
    hypotheses: int = 1000
    residual: float = 20.0
    model: str = "affine"
    scoring: str = "inliers"
    local_optimization: bool = False
    guided: bool = False
    min_inliers: int = 15
    score: str = "inliers"
    pair_block: int = 10

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if not 0 < self.max_distance <= 2:
            rule = "must lie in (0, 2], the distances of unit vectors"
            raise WrongField("max_distance", self.max_distance, rule)
        if self.max_features < 0:
            raise WrongField("max_features", self.max_features, "must not be negative")
        if self.pair_block < 1:
            raise WrongField("pair_block", self.pair_block, "must be at least 1")
        if not 0 <= self.ratio <= 1:
            raise WrongField("ratio", self.ratio, "must lie in [0, 1]")
        for name, known in (("hamming", HAMMING), ("score", SCORES)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise WrongField(name, given, f"must be one of {', '.join(known)}")
        _ = self.ransac  # checks its own fields

    @functools.cached_property
    def ransac(self) -> Options:
        """The settings that concern hypotheses."""
        names = (field.name for field in dataclasses.fields(Options))
        return Options(**{name: getattr(self, name) for name in names})
