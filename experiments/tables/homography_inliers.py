"""Quality of local features alone, on synthetic landmarks with known homographies.

    python -m experiments.tables.homography_inliers --workdir=runs/quickstart

Every query is compared with every image of its landmark. Repeatability is the share of features for
which the other image has a feature at the same place of the landmark; the matching score is the
share for which that feature has the nearest descriptor; an inlier of spatial verification is
correct if the true homography maps it to its match. The tolerance is 5 pixels. Rows are by
transition tilt, the foreshortening of one view relative to the other. Uses the features of the
workdir, or extracts them. Fields can be changed, for example --config.rerank.sp.model=homography.
Writes homography_inliers.json, .md and .svg into --results.
"""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data.synthetic.camera import homography_between
from delg_jax.data.synthetic.datasets import scale_and_tilt
from delg_jax.errors import UserError
from delg_jax.evaluation import repeatability
from delg_jax.features import Extracted, LocalFeatures, extract
from delg_jax.features.image_sets import query_boxes
from delg_jax.reports import tables
from delg_jax.reports.charts import line_chart
from delg_jax.retrieval.settings import RerankSettings

TILTS = (1.0, 1.15, 1.3, 1.6, 2.0, np.inf)  # bounds of the rows
SHARES = ("repeatability", "matching score", "correct inliers")

Measured = tuple[float, repeatability.Measures]


def pairs(
    extracted: Extracted, boxes: list | None, count: int
) -> Iterator[tuple[float, repeatability.Pair]]:
    """Pairs every query, as the second image, with every positive image.

    Args:
      extracted: features of the synthetic landmarks.
      boxes: that queries were cropped to; None if they were not.
      count: strongest features of an image to use; 0 for all.

    Yields:
      Transition tilt at the centre of the query's box, and the pair.
    """
    queries, database = (
        part.local_features(count) for part in (extracted.queries, extracted.database)
    )
    views, index = extracted.data.queries, extracted.data.database
    for number, entry in enumerate(extracted.data.ground_truth):
        box = entry["bbx"]
        y, x = boxes[number][1::-1] if boxes else (0.0, 0.0)
        query = LocalFeatures(*(field[number] for field in queries))
        query = query._replace(locations=query.locations + np.array([[y, x]], np.float32))
        for place in (*entry["easy"], *entry["hard"]):
            image = LocalFeatures(*(field[place] for field in database))
            maps = views.homographies[number], index.homographies[place]
            _, tilt = scale_and_tilt(homography_between(*maps), np.add(box[:2], box[2:]) / 2)
            to_query = homography_between(*maps[::-1])
            areas = tuple(index.boxes[place]), tuple(box)
            yield tilt, repeatability.Pair(image, query, to_query, *areas)


def by_tilt(measured: Sequence[Measured]) -> list[dict[str, float]]:
    """Averages over the pairs of each interval of `TILTS`; correct inliers are pooled."""
    rows = []
    for low, high in zip(TILTS, TILTS[1:], strict=False):
        members = [(tilt, found) for tilt, found in measured if low <= tilt < high]
        if not members:
            continue
        correct = np.concatenate([found.correct for _, found in members])
        rows.append(
            {
                "from": low,
                "to": high if np.isfinite(high) else None,
                "pairs": len(members),
                "tilt": _mean([tilt for tilt, _ in members]),
                SHARES[0]: _mean([found.repeatability for _, found in members]),
                SHARES[1]: _mean([found.matching_score for _, found in members]),
                "inliers": len(correct) / len(members),
                SHARES[2]: _mean(correct),
            }
        )
    return rows


def table(rows: Sequence[dict[str, float]]) -> str:
    """Returns the rows in Markdown."""
    header = ("transition tilt", "pairs", *SHARES[:2], "inliers a pair", SHARES[2])
    cells = []
    for row in rows:
        last = "inf" if row["to"] is None else f"{row['to']:g}"
        shares = ["-" if row[name] is None else f"{row[name]:.1%}" for name in SHARES]
        counts = str(row["pairs"]), f"{row['inliers']:.1f}"
        cells.append((f"{row['from']:g} to {last}", counts[0], *shares[:2], counts[1], shares[2]))
    return tables.markdown(header, cells)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="quickstart")
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures all pairs and prints the table."""
    if values.config.data.name != "synthetic":
        rule = "must be synthetic: other data sets have no known homographies"
        raise UserError("config.data.name", values.config.data.name, rule)
    settings = RerankSettings.of(values.config.rerank).sp
    extracted = extract(values.config, values.workdir, values.overwrite)
    boxes = query_boxes(values.config, extracted.data)
    every = pairs(extracted, boxes, settings.max_features)
    rows = by_tilt([(tilt, repeatability.measure(pair, settings)) for tilt, pair in every])
    curves = {
        name: [(row["tilt"], row[name]) for row in rows if row[name] is not None] for name in SHARES
    }
    title = "Local features on pairs with known homographies"
    picture = line_chart(title, "transition tilt between the views", "share", curves)
    content, text = {"rows": rows}, f"{table(rows)}\n"
    harness.write_result(
        values.results, "homography_inliers", content, text, picture, values.config
    )
    print(table(rows))


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the values that are not NaN; None without any."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
