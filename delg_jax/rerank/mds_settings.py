"""How a short list is embedded by multidimensional scaling and scored."""

import dataclasses

from delg_jax.errors import WrongField
from delg_jax.rerank.distances import FORMS, MISSING
from delg_jax.rerank.eigenpairs import SOLVERS

METHODS = ("classical", "smacof", "landmark")


@dataclasses.dataclass(frozen=True)
class MdsSettings:
    """How a short list is embedded and scored; the same names as in the configuration.

    Attributes:
      short_list: images of the local search that are re-ranked, M.
      dim: dimension of the embedding; a shorter list needs fewer, and the others are zero.
      distance: form of the distance, one of `distances.FORMS`.
      contrast: similarity that counts as 1; it lies far below 1 for different photographs.
      background: similarity that counts as 0; unrelated photographs are above 0.
      background_rank: rank in an image's own list whose similarity counts as its 0, before all
        else; 0 = none, and in a smaller database the last. Images without texture resemble all
        others, and this takes it from them.
      power: exponent of the distance of that name.
      missing: what a missing similarity is, one of `distances.MISSING`.
      method: classical; smacof, which starts from it; or landmark, for long short lists.
      solver: of the eigenpairs, one of `eigenpairs.SOLVERS`.
      landmarks: first images that, with the query, are the landmarks.
      iterations: of smacof.
      missing_weight: weight of a missing pair in smacof, beside the 1 of the others.
      concat_weight: w of [sqrt(w) embedding, sqrt(1 - w) global descriptor], where there is one.
      neighbours: of an image in the step of SuperGlobal on these vectors, with their mean where it
        takes the elementwise maximum of descriptors; 0 = no such step.
      beta: weight of a neighbour in that step.
      weight: share of the vectors in the score, beside the local similarity.
      query_block: queries embedded at a time.
    """

    short_list: int = 400
    dim: int = 128
    distance: str = "chord"
    contrast: float = 1.0
    background: float = 0.0
    background_rank: int = 0
    power: float = 1.0
    missing: str = "zero"
    method: str = "classical"
    solver: str = "eigh"
    landmarks: int = 200
    iterations: int = 30
    missing_weight: float = 0.1
    concat_weight: float = 0.5
    neighbours: int = 0
    beta: float = 0.3
    weight: float = 0.3
    query_block: int = 8

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        choices = {"distance": FORMS, "missing": MISSING, "method": METHODS, "solver": SOLVERS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise WrongField(name, value, f"must be one of {', '.join(known)}")
        if self.background < 0:
            raise WrongField("background", self.background, "must not be negative")
        if self.contrast <= self.background:
            raise WrongField(
                "contrast", self.contrast, f"must be above `background` (={self.background})"
            )
        if not 0 < self.missing_weight <= 1:
            raise WrongField("missing_weight", self.missing_weight, "must lie in (0, 1]")
        for name in ("weight", "concat_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise WrongField(name, getattr(self, name), "must lie in [0, 1]")
        for name in ("short_list", "dim", "landmarks", "query_block"):
            if getattr(self, name) < 1:
                raise WrongField(name, getattr(self, name), "must be at least 1")
        for name in ("power", "iterations", "neighbours", "beta", "background_rank"):
            if getattr(self, name) < 0:
                raise WrongField(name, getattr(self, name), "must not be negative")
