"""How many inliers are right: verification of the embedded landmarks against their true views.

    python -m experiments.homography_inliers --workdir=runs/quickstart

Every query is verified with every image of its landmark. An inlier is correct if the true map
between the two photographs takes it to within 5 pixels. Printed by the transition tilt between the
views, that is by how much one is squeezed against the other; any field may be changed, as
--config.rerank.sp.model=homography. Features are those of the workdir, extracted if need be.
"""

import sys

import jax
import numpy as np
from absl import flags

from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data.embedded.camera import homography_between, transform
from delg_jax.data.embedded.ground_truth import scale_and_tilt
from delg_jax.errors import UserError
from delg_jax.evaluation.methods import spatial_settings
from delg_jax.features import Extracted, LocalFeatures, extract
from delg_jax.features.parts import query_boxes
from delg_jax.reports import tables
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.spatial_verification import verify_pair

CORRECT = 5.0  # pixels
TILTS = (1.0, 1.15, 1.3, 1.6, 2.0, np.inf)  # borders of the rows


def correct(
    query: LocalFeatures,
    image: LocalFeatures,
    to_query: np.ndarray,
    corner: tuple[float, float],
    settings: SpatialSettings,
) -> np.ndarray:
    """Verifies one pair.

    Args:
      query: features of the query, in pixels of its crop.
      image: features of the other.
      to_query: float [3, 3], true map of (x, y) from the image to the whole query photograph.
      corner: (x, y) of the crop in the query photograph.
      settings: of spatial verification.

    Returns:
      For each inlier whether it is correct, bool [inliers].
    """
    found = verify_pair(query, image, jax.random.key(0), settings)
    here, there = found.matches[found.inlier_mask].T
    expected = transform(to_query, image.locations[there][:, ::-1])
    placed = query.locations[here][:, ::-1] + np.asarray(corner)[None, :]
    return np.linalg.norm(expected - placed, axis=1) <= CORRECT  # False behind the camera


def verify_all(
    extracted: Extracted, boxes: list | None, settings: SpatialSettings
) -> list[tuple[float, np.ndarray]]:
    """Tilt and `correct` of every query with every image that is an answer to it."""
    queries = extracted.queries.local_features(settings.max_features)
    database = extracted.database.local_features(settings.max_features)
    views, index_views = (
        source.homographies for source in (extracted.data.queries, extracted.data.database)
    )
    results = []
    for number, entry in enumerate(extracted.data.ground_truth):
        x1, y1, x2, y2 = entry["bbx"]
        corner = boxes[number][:2] if boxes else (0.0, 0.0)
        query = LocalFeatures(*(field[number] for field in queries))
        for position in (*entry["easy"], *entry["hard"]):
            image = LocalFeatures(*(field[position] for field in database))
            to_query = homography_between(index_views[position], views[number])
            from_query = homography_between(views[number], index_views[position])
            _, tilt = scale_and_tilt(from_query, np.array([x1 + x2, y1 + y2]) / 2)
            results.append((tilt, correct(query, image, to_query, corner, settings)))
    return results


def rows(results: list[tuple[float, np.ndarray]]) -> list[tuple[str, ...]]:
    """One row for each step of `TILTS` that has pairs: pairs, inliers a pair, share correct."""
    table = []
    for low, high in zip(TILTS, TILTS[1:], strict=False):
        members = [right for tilt, right in results if low <= tilt < high]
        if members:
            inliers = np.concatenate(members)
            share = f"{inliers.mean():.1%}" if len(inliers) else "-"
            mean = f"{len(inliers) / len(members):.1f}"
            table.append((f"{low:g} to {high:g}", str(len(members)), mean, share))
    return table


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="configs/quickstart.py")


def run(values: flags.FlagValues) -> None:
    """Verifies and prints the table."""
    if values.config.data.name != "embedded":
        rule = "must be embedded: no other photographs have known views"
        raise UserError("config.data.name", values.config.data.name, rule)
    settings = spatial_settings(values.config.rerank)
    extracted = extract(values.config, values.workdir, values.overwrite)
    boxes = query_boxes(values.config, extracted.data)
    results = verify_all(extracted, boxes, settings)
    header = ("transition tilt", "pairs", "inliers a pair", f"correct within {CORRECT:g} px")
    print(tables.markdown(header, rows(results)))


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
