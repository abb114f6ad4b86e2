"""Table 4: Google Landmarks v2, retrieval (mAP@100) and recognition (GAP).

    python -m experiments.tables.table4_gldv2 --size=quick --workdir=runs/quick

At size quick, rendered landmarks replace the retrieval data, and recognition is left out. Writes
table4_gldv2_SIZE.json and .md into --results.
"""

import dataclasses
import sys

from delg_jax.cli.main import run_experiment
from experiments.framework import presets, trainings
from experiments.framework.experiment import Claim, Column, Experiment, Row, map_columns
from experiments.framework.program import program

_RETRIEVAL, _RECOGNITION = "retrieval mAP@100", "recognition GAP"
_GLDV2 = {
    "gldv2": {"data.name": "gldv2", "data.root": "{data}/gldv2"},
    "gldv2_recognition": {
        "data.name": "gldv2_recognition",
        "data.root": "{data}/gldv2",
        "rerank.sp.score": "combined",
    },
}


def _row(name, setting, method, retrieval, recognition, where=("paper", "quick")):
    return Row(name, (setting,), method, {_RETRIEVAL: retrieval, _RECOGNITION: recognition}, where)


EXPERIMENT = Experiment(
    name="table4_gldv2",
    place="Table 4: Google Landmarks v2, in percent",
    columns=(
        Column(
            _RETRIEVAL,
            "gldv2",
            "methods/{method}/retrieval/map@100",
            "average_precisions/{method}/retrieval",
        ),
        Column(
            _RECOGNITION,
            "gldv2_recognition",
            "methods/{method}/recognition/gap",
            interval="intervals/{method}/recognition",
            comparison="comparisons/{method}/recognition",
        ),
        *map_columns("oxford", "rendered", ("medium",)),
    ),
    rows=(
        _row("R50 global", trainings.DELG, "global", 20.4, 32.4),
        _row("R101 global", trainings.DELG_R101, "global", 21.7, 32.0, ("paper",)),
        _row("R50-DELG", trainings.DELG, "global+sp", 22.3, 56.8),
        _row("R101-DELG", trainings.DELG_R101, "global+sp", 24.3, 58.8, ("paper",)),
    ),
    sizes={
        "paper": dataclasses.replace(
            presets.PAPER,
            about="networks trained on Google Landmarks v1, evaluated on the private queries of v2",
            data=_GLDV2,
        ),
        "quick": presets.QUICK,
    },
    claims=(Claim("R50-DELG", "R50 global"), Claim("R101-DELG", "R101 global")),
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
