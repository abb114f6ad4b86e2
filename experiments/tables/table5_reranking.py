"""Table 5: re-ranking of one global short list by the network's local features and by SIFT.

    python -m experiments.tables.table5_reranking --size=quick --workdir=runs/quick

Both kinds have the same number of features and hypotheses. Each uses the matching rule that is best
on half of the landmarks (distance or ratio test, their limits, the inlier threshold and the least
number of inliers), and is measured on the others. Queries show one landmark if they share most of
their images, so the 15 newer queries of Revisited Oxford stay with those of their landmarks. SIFT
needs OpenCV, from the extra `bench`. Writes table5_reranking_SIZE.json and .md into --results.
"""

import itertools
import sys

from delg_jax.cli.main import run_experiment
from experiments.framework import presets, trainings
from experiments.framework.experiment import Choice, Claim, Experiment, Row, Setting, map_columns
from experiments.framework.program import program

# (max_distance, ratio); a distance of 2 accepts every match
_TESTS = {
    "delg": ((0.8, 0.0), (1.0, 0.0), (2.0, 0.9), (2.0, 0.95)),
    "sift": ((0.6, 0.0), (2.0, 0.8), (2.0, 0.9), (2.0, 0.95)),
}
_INLIER_THRESHOLDS = (10.0, 20.0)
_MIN_INLIERS = (4, 12)
_COMMON = {"extract.max_features": 1000, "rerank.sp.max_features": 1000}


def _settings(kind):
    """Returns a setting for each matching rule of a kind of features."""
    found = []
    for (distance, ratio), inlier_threshold, min_inliers in itertools.product(
        _TESTS[kind], _INLIER_THRESHOLDS, _MIN_INLIERS
    ):
        name = f"match_{kind}_{distance}_{ratio}_{inlier_threshold:.0f}_{min_inliers}"
        fields = {
            "rerank.sp.max_distance": distance,
            "rerank.sp.ratio": ratio,
            "rerank.sp.inlier_threshold": inlier_threshold,
            "rerank.sp.min_inliers": min_inliers,
        }
        overrides = {**_COMMON, **fields}
        sift = kind == "sift"
        found.append(Setting(name, ("global", "global+sp"), trainings.JOINT, overrides, sift))
    return tuple(found)


def _row(name, settings, method, medium, hard):
    return Row(name, settings, method, {"ROxf Medium": medium, "ROxf Hard": hard})


_DELG, _SIFT = _settings("delg"), _settings("sift")
EXPERIMENT = Experiment(
    name="table5_reranking",
    place="Table 5: re-ranking by other local features, mAP in percent",
    columns=map_columns("oxford", "ROxf", ("medium", "hard")),
    rows=(
        _row("global", _DELG[:1], "global", 69.7, 45.1),
        _row("SIFT", _SIFT, "global+sp", 69.8, 44.4),
        _row("DELG", _DELG, "global+sp", 75.4, 53.7),
    ),
    sizes={"paper": presets.PAPER, "real": presets.REAL_THREE_SCALES, "quick": presets.QUICK},
    claims=(Claim("DELG", "global"), Claim("DELG", "SIFT"), Claim("SIFT", "global")),
    choice=Choice(("ROxf Medium", "ROxf Hard")),
    note="The paper measures on all queries and does not say how the rules were chosen.",
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
