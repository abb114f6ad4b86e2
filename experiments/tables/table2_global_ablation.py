"""Table 2: pooling, loss and gradients of the global descriptor.

    python -m experiments.tables.table2_global_ablation --size=quick --workdir=runs/quick

At size real the backbone is frozen, so that only pooling and loss are compared. Writes
table2_global_ablation_SIZE.json and .md into --results.
"""

import sys

from delg_jax.cli.main import run_experiment
from experiments.framework import presets, trainings
from experiments.framework.experiment import Claim, Experiment, Row, Setting, map_columns
from experiments.framework.program import program

_PROTOCOLS = ("medium", "hard")
_TITLES = ("ROxf Medium", "RPar Medium", "ROxf Hard", "RPar Hard")
_WHOLE = ("paper", "quick")


def _row(name, training, paper, where=("paper", "real", "quick")):
    setting = Setting(f"global_of_{training.name}", ("global",), training)
    return Row(name, (setting,), "global", dict(zip(_TITLES, paper, strict=True)), where)


EXPERIMENT = Experiment(
    name="table2_global_ablation",
    place="Table 2: global features, mAP in percent",
    columns=(
        *map_columns("oxford", "ROxf", _PROTOCOLS),
        *map_columns("paris", "RPar", _PROTOCOLS),
    ),
    rows=(
        _row("SPoC, softmax", trainings.AVERAGE_SOFTMAX, (51.2, 72.0, 26.3, 47.7)),
        _row("SPoC, ArcFace", trainings.AVERAGE_ARCFACE, (59.8, 80.8, 35.6, 61.7)),
        _row("GeM, ArcFace", trainings.GLOBAL, (69.3, 82.2, 44.4, 64.0)),
        _row("GeM, ArcFace, joint", trainings.FLOWING, (68.8, 78.9, 42.4, 58.3), _WHOLE),
        _row("GeM, ArcFace, joint, stopped", trainings.JOINT, (69.7, 81.6, 45.1, 63.4), _WHOLE),
    ),
    sizes={"paper": presets.PAPER, "real": presets.REAL_HEADS, "quick": presets.QUICK},
    claims=(
        Claim("SPoC, ArcFace", "SPoC, softmax"),
        Claim("GeM, ArcFace", "SPoC, ArcFace"),
        Claim("GeM, ArcFace, joint, stopped", "GeM, ArcFace, joint"),
    ),
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
