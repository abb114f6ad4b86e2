"""Views of the local features of a run: matches between two images, and attention."""

import jax
import numpy as np

from delg_jax.data import RetrievalData
from delg_jax.errors import UserError
from delg_jax.features import LocalFeatures
from delg_jax.features.image_sets import query_boxes
from delg_jax.reports.workdir_results import WorkdirResults
from delg_jax.rerank.spatial_verification import verify_pair
from delg_jax.retrieval.settings import RerankSettings

UNIT = 1000  # locations are whole thousandths of an image's height and width
_MAX_INLIERS, _MAX_OTHERS, _MAX_SPOTS = 80, 40, 40
_SPOT_RADIUS = 16  # pixels at scale 1, about a cell of the feature map
_LEVELS = 9  # of attention

Shape = tuple[int, int]


class LocalFeatureViews:
    """Matches and attention from the features of one run.

    Args:
      run: with features.
      data: the images and the ground truth, or None if they cannot be opened.

    Attributes:
      min_inliers: inliers that make a pair verified.

    Raises:
      UserError: if it has no local features, or its configuration cannot be used.
    """

    def __init__(self, run: WorkdirResults, data: RetrievalData | None) -> None:
        if run.config is None or run.queries is None or run.database is None:
            raise ValueError("`run` must have a configuration and features")
        try:
            self._settings = RerankSettings.of(run.config.rerank).sp
            self._key = jax.random.key(run.config.seed)
            self._boxes = None if data is None else query_boxes(run.config, data)
        except (AttributeError, KeyError, TypeError) as error:
            rule = f"is from another version of delg_jax: {error}"
            raise UserError("configuration", str(run.folder), rule) from error
        stores = {"queries": run.queries, "database": run.database}
        count = self._settings.max_features
        self._features = {split: store.local_features(count) for split, store in stores.items()}
        self._sizes = {split: store.sizes() for split, store in stores.items()}
        self.min_inliers = self._settings.min_inliers

    def matches(
        self, query: int, image: int, shapes: tuple[Shape | None, Shape | None]
    ) -> dict[str, object]:
        """Verifies a pair of images, as spatial verification does.

        Args:
          query: index of the query.
          image: index of the database image.
          shapes: rows and columns of both images; None to use those of the features.

        Returns:
          `matches` and `inliers`, their numbers; `lines` (inliers) and `others` (other matches),
          four whole numbers each: x and y in the query, x and y in the image, in thousandths.
        """
        sides = self._features_of("queries", query), self._features_of("database", image)
        found = verify_pair(*sides, self._key, self._settings, pair_id=image)
        ends = []
        both = zip(sides, ("queries", "database"), (query, image), shapes, strict=True)
        for column, (features, split, number, shape) in enumerate(both):
            locations = np.asarray(features.locations)[found.matches[:, column]]
            ends.append(self._thousandths(locations, split, number, shape))
        lines = np.concatenate(ends, axis=1)
        inlier = found.inlier_mask
        return {
            "matches": len(inlier),
            "inliers": int(inlier.sum()),
            "lines": lines[inlier][:_MAX_INLIERS].ravel().tolist(),
            "others": lines[~inlier][:_MAX_OTHERS].ravel().tolist(),
        }

    def attention(self, split: str, number: int, shape: Shape | None) -> list[int]:
        """The local features of an image with the highest attention scores.

        Args:
          split: queries or database.
          number: index of the image.
          shape: its rows and columns; None to use those of the features.

        Returns:
          Four whole numbers for each feature: x, y and radius in thousandths, and the level of
          attention from 1 to 9.
        """
        features = self._features_of(split, number)
        count = min(int(np.asarray(features.mask).sum()), _MAX_SPOTS)
        if not count:
            return []
        scores = np.asarray(features.scores, np.float64)[:count]
        locations = self._thousandths(np.asarray(features.locations)[:count], split, number, shape)
        longest = max(*(shape or self._shape(split, number)), 1)
        radii = np.asarray(features.scales)[:count] * _SPOT_RADIUS * UNIT / longest
        levels = np.ceil(_LEVELS * scores / max(scores.max(), 1e-12)).clip(1, _LEVELS)
        columns = [locations, radii.round()[:, None], levels[:, None]]
        return np.concatenate(columns, axis=1).astype(int).ravel().tolist()

    def _features_of(self, split: str, number: int) -> LocalFeatures:
        return LocalFeatures(*(field[number] for field in self._features[split]))

    def _shape(self, split: str, number: int) -> Shape:
        """Rows and columns of the image, or if unknown of the smallest that holds all locations."""
        rows, columns = self._sizes[split][number].tolist()
        if rows and columns:
            return rows, columns
        features = self._features_of(split, number)
        far = np.asarray(features.locations)[np.asarray(features.mask)].max(axis=0, initial=1.0)
        return int(np.ceil(far[0])), int(np.ceil(far[1]))

    def _thousandths(
        self, locations: np.ndarray, split: str, number: int, shape: Shape | None
    ) -> np.ndarray:
        """Locations (y, x) in pixels as whole thousandths (x, y), int [L, 2]."""
        size, corner = shape or self._shape(split, number), (0, 0)
        if split == "queries" and self._boxes is not None and shape is not None:
            left, top, *_ = self._boxes[number]  # features of a crop count from its corner
            corner = (max(round(float(top)), 0), max(round(float(left)), 0))
        shifted = locations.astype(np.float64) + np.array(corner, np.float64)[None, :]
        shares = UNIT * shifted / np.maximum(np.array(size, np.float64), 1.0)[None, :]
        return shares[:, ::-1].round().clip(0, UNIT).astype(int)
