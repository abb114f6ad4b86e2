"""What the local features of a run say about pictures: matches of pairs, and attention."""

import jax
import numpy as np

from delg_jax.data import RetrievalData
from delg_jax.errors import UserError
from delg_jax.features import LocalFeatures
from delg_jax.features.image_sets import query_boxes
from delg_jax.reports.workdir_results import Evaluated
from delg_jax.rerank.spatial_verification import verify_pair
from delg_jax.retrieval.settings import spatial_settings

UNIT = 1000  # places are whole thousandths of a picture's height and width
_MOST_INLIERS, _MOST_OTHERS, _MOST_SPOTS = 80, 40, 40
_SPOT = 16  # pixels at scale 1: the radius of a spot, about a cell of the feature map
_LEVELS = 9  # of attention

Shape = tuple[int, int]


class Evidence:
    """Reads the features of one run.

    Args:
      run: with features.
      data: the images and the ground truth, or None if they cannot be opened.

    Attributes:
      least: inliers that make a pair verified.

    Raises:
      UserError: if it has no local features, or a configuration that cannot be used.
    """

    def __init__(self, run: Evaluated, data: RetrievalData | None) -> None:
        try:
            self._settings = spatial_settings(run.config.rerank)
            self._key = jax.random.key(run.config.seed)
            self._boxes = None if data is None else query_boxes(run.config, data)
        except (AttributeError, KeyError, TypeError) as error:
            rule = f"is of another version of this program: {error}"
            raise UserError("configuration", str(run.folder), rule) from error
        stores = {"queries": run.queries, "database": run.database}
        count = self._settings.max_features
        self._features = {part: store.local_features(count) for part, store in stores.items()}
        self._sizes = {part: store.sizes() for part, store in stores.items()}
        self.least = self._settings.min_inliers

    def matches(
        self, query: int, image: int, shapes: tuple[Shape | None, Shape | None]
    ) -> dict[str, object]:
        """Verifies a pair, as the ranking by inliers did.

        Args:
          query: number of the query.
          image: number of the database image.
          shapes: rows and columns of both pictures; None for those that the features refer to.

        Returns:
          Numbers `matches` and `inliers`; and `lines` and `others`, of matches that fit and that
          do not, four whole numbers each: x and y in the query, x and y in the image, in
          thousandths.
        """
        sides = self._one("queries", query), self._one("database", image)
        found = verify_pair(*sides, self._key, self._settings, pair_id=image)
        ends = []
        whole = zip(sides, ("queries", "database"), (query, image), shapes, strict=True)
        for column, (side, part, number, shape) in enumerate(whole):
            places = np.asarray(side.locations)[found.matches[:, column]]
            ends.append(self._thousandths(places, part, number, shape))
        lines = np.concatenate(ends, axis=1)
        inlier = found.inlier_mask
        return {
            "matches": len(inlier),
            "inliers": int(inlier.sum()),
            "lines": lines[inlier][:_MOST_INLIERS].ravel().tolist(),
            "others": lines[~inlier][:_MOST_OTHERS].ravel().tolist(),
        }

    def spots(self, part: str, number: int, shape: Shape | None) -> list[int]:
        """Where attention is high: the best local features of a picture.

        Args:
          part: queries or database.
          number: of the picture.
          shape: its rows and columns; None for those that the features refer to.

        Returns:
          Four whole numbers each: x, y and radius in thousandths, and the level of attention from
          1 to 9.
        """
        features = self._one(part, number)
        count = min(int(np.asarray(features.mask).sum()), _MOST_SPOTS)
        if not count:
            return []
        scores = np.asarray(features.scores, np.float64)[:count]
        places = np.asarray(features.locations)[:count]
        places = self._thousandths(places, part, number, shape)
        longest = max(*(shape or self._shape(part, number)), 1)
        radii = np.asarray(features.scales)[:count] * _SPOT * UNIT / longest
        levels = np.ceil(_LEVELS * scores / max(scores.max(), 1e-12)).clip(1, _LEVELS)
        columns = [places, radii.round()[:, None], levels[:, None]]
        return np.concatenate(columns, axis=1).astype(int).ravel().tolist()

    def _one(self, part: str, number: int) -> LocalFeatures:
        return LocalFeatures(*(field[number] for field in self._features[part]))

    def _shape(self, part: str, number: int) -> Shape:
        """Rows and columns that the locations refer to, or that hold them if it is not known."""
        rows, columns = self._sizes[part][number].tolist()
        if rows and columns:
            return rows, columns
        features = self._one(part, number)
        far = np.asarray(features.locations)[np.asarray(features.mask)].max(axis=0, initial=1.0)
        return int(np.ceil(far[0])), int(np.ceil(far[1]))

    def _thousandths(
        self, places: np.ndarray, part: str, number: int, shape: Shape | None
    ) -> np.ndarray:
        """Places (y, x) in pixels of the features as whole x and y int [L, 2]."""
        frame, corner = shape or self._shape(part, number), (0, 0)
        if part == "queries" and self._boxes is not None and shape is not None:
            left, top, *_ = self._boxes[number]  # features of a crop count from its corner
            corner = (max(round(float(top)), 0), max(round(float(left)), 0))
        shifted = places.astype(np.float64) + np.array(corner, np.float64)[None, :]
        shares = UNIT * shifted / np.maximum(np.array(frame, np.float64), 1.0)[None, :]
        return shares[:, ::-1].round().clip(0, UNIT).astype(int)
