"""Table 3: global features, and re-ranking by local features, float or one-bit (DELG*).

    python -m experiments.tables.table3_retrieval --size=quick --workdir=runs/quick

At size real the network is an ImageNet ResNet-50 without further training. Writes
table3_retrieval_SIZE.json and .md into --results.
"""

import sys

from delg_jax.cli.main import run_experiment
from experiments.framework import presets, trainings
from experiments.framework.experiment import Claim, Experiment, Row, Setting, map_columns
from experiments.framework.program import program
from experiments.framework.trainings import DELG, DELG_R101

_PROTOCOLS = ("medium", "hard")
# In the order of the paper's columns
_TITLES = tuple(
    f"{data} {protocol}"
    for protocol in ("Medium", "Hard")
    for data in ("ROxf", "ROxf+1M", "RPar", "RPar+1M")
)
_ALL = ("paper", "real", "quick")
_THREE = {"extract.local_scales": presets.THREE_SCALES}
_ONE_BIT_THREE = {**trainings.ONE_BIT, **_THREE}
_DELG_STAR = Setting("delg_one_bit", ("global+sp",), trainings.JOINT, trainings.ONE_BIT)
_DELG_3 = Setting("delg_3_scales", ("global+sp",), trainings.JOINT, _THREE)
_DELG_STAR_3 = Setting("delg_one_bit_3_scales", ("global+sp",), trainings.JOINT, _ONE_BIT_THREE)
_DEEP = trainings.JOINT_R101
_R101_STAR = Setting("delg_r101_one_bit", ("global+sp",), _DEEP, trainings.ONE_BIT)
_R101_3 = Setting("delg_r101_3_scales", ("global+sp",), _DEEP, _THREE)
_R101_STAR_3 = Setting("delg_r101_one_bit_3_scales", ("global+sp",), _DEEP, _ONE_BIT_THREE)


def _row(name, setting, method, paper=(), where=_ALL):
    found = {t: v for t, v in zip(_TITLES, paper, strict=bool(paper)) if v is not None}
    return Row(name, (setting,), method, found, where)


def _star(medium_oxford, medium_paris, hard_oxford, hard_paris):
    """Returns the numbers of a row that the paper has only with a million distractors."""
    return (None, medium_oxford, None, medium_paris, None, hard_oxford, None, hard_paris)


_R101_ROWS = (
    ("R101 global", DELG_R101, "global", (73.2, 54.8, 82.4, 61.8, 51.2, 30.3, 64.7, 35.5)),
    ("R101-DELG, 3 scales", _R101_3, "global+sp", (77.2, 61.7, 82.4, 62.3, 55.4, 37.5, 62.7, 35.3)),
    ("R101-DELG*, 3 scales", _R101_STAR_3, "global+sp", _star(61.2, 62.2, 36.4, 35.4)),
    ("R101-DELG", DELG_R101, "global+sp", (78.5, 62.7, 82.6, 62.5, 58.6, 39.2, 63.9, 36.3)),
    ("R101-DELG*", _R101_STAR, "global+sp", _star(62.2, 62.4, 38.3, 36.1)),
)
EXPERIMENT = Experiment(
    name="table3_retrieval",
    place="Table 3: retrieval, mAP in percent",
    columns=(
        *map_columns("oxford", "ROxf", _PROTOCOLS),
        *map_columns("oxford+1m", "ROxf+1M", _PROTOCOLS),
        *map_columns("paris", "RPar", _PROTOCOLS),
        *map_columns("paris+1m", "RPar+1M", _PROTOCOLS),
    ),
    rows=(
        _row("R50 global", DELG, "global", (69.7, 55.0, 81.6, 59.7, 45.1, 27.8, 63.4, 34.1)),
        _row("R50-DELG", DELG, "global+sp", (75.4, 60.8, 82.2, 60.4, 53.7, 35.6, 63.7, 34.4)),
        _row("R50-DELG*", _DELG_STAR, "global+sp", _star(60.4, 60.3, 35.3, 34.1)),
        _row("R50-DELG, 3 scales", _DELG_3, "global+sp", where=("paper", "real")),
        _row("R50-DELG*, 3 scales", _DELG_STAR_3, "global+sp", where=("paper", "real")),
        *(_row(*row, where=("paper",)) for row in _R101_ROWS),
    ),
    sizes={"paper": presets.PAPER, "real": presets.REAL_IMAGENET, "quick": presets.QUICK},
    claims=(
        Claim("R50-DELG", "R50 global"),
        Claim("R50-DELG*", "R50 global"),
        Claim("R50-DELG", "R50-DELG*"),
        Claim("R50-DELG", "R50-DELG, 3 scales"),
        Claim("R101 global", "R50 global"),
        Claim("R101-DELG", "R101 global"),
        Claim("R101-DELG", "R50-DELG"),
    ),
    note="Local features have seven scales unless the row says otherwise; at size quick, three.",
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
