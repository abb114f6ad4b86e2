"""Table 1: dimension reduction of local features, trained separately or jointly.

    python -m experiments.tables.table1_local_ablation --size=quick --workdir=runs/quick

Separate training of the local head starts from the global network, which is trained once, and takes
a third of its steps, as in the paper. At size paper the pairs are of validation images of Google
Landmarks, at the others of a query and a database image. At size real the backbone is frozen.
Writes table1_local_ablation_SIZE.json and .md into --results.
"""

import dataclasses
import sys

from delg_jax.cli.main import run_experiment
from experiments.framework import presets, trainings
from experiments.framework.experiment import Claim, Column, Experiment, Row, Setting, Training
from experiments.framework.program import program

_LOCAL = {"train.heads": "local"}
_TAU = {"extract.attention_quantile": 0.75}
_PAIRS = "pairs AP"
_WHOLE = ("paper", "quick")
_GLD = {"data.name": "gldv1", "data.root": "{data}/gldv1"}


def _with_pairs(size, images, positives, negatives):
    """Returns the size with a data set of pairs of these images, and their numbers."""
    counts = {"eval.pairs": positives, "eval.negative_pairs": negatives}
    titles = {"pairs": size.titles["oxford"]} if size.titles else {}
    return dataclasses.replace(size, data={"pairs": {**images, **counts}}, titles=titles)


def _separate(kind, name, **fields):
    """Returns the training of a local head on the global network."""
    model = {"model.dim_reduction": kind}
    return Training(f"local_{name}", {**_LOCAL, **model, **fields}, trainings.GLOBAL, share=1 / 3)


def _row(name, training, paper, where=("paper", "real", "quick"), **fields):
    setting = Setting(f"pairs_of_{training.name}", ("local",), training, {**_TAU, **fields})
    return Row(name, (setting,), "local", {_PAIRS: paper}, where)


def _pca(dim, where):
    return _row("PCA", _separate("none", "none"), 51.48, where, **{"extract.pca_dim": dim})


def _autoencoder(weight, paper):
    training = _separate("ae", f"ae_{weight}", **{"train.reconstruction_weight": float(weight)})
    return _row(f"AE, λ = {weight}", training, paper)


EXPERIMENT = Experiment(
    name="table1_local_ablation",
    place="Table 1: local features, average precision in percent",
    columns=(
        Column(_PAIRS, "pairs", "pairs/average_precision", interval="pairs"),
        Column(
            "local search, Medium",
            "pairs",
            "methods/local/medium/map",
            "average_precisions/local/medium",
        ),
    ),
    rows=(
        _pca(128, ("paper", "real")),
        _pca(64, ("quick",)),
        _row("FC", _separate("fc", "fc"), 52.67),
        _autoencoder(0, 49.95),
        _autoencoder(1, 51.28),
        _autoencoder(5, 52.26),
        _autoencoder(10, 54.21),
        _autoencoder(20, 53.51),
        _row("AE, λ = 10, joint", trainings.FLOWING, 37.05, _WHOLE),
        _row("AE, λ = 10, joint, stopped", trainings.JOINT, 53.73, _WHOLE),
    ),
    sizes={
        "paper": _with_pairs(presets.PAPER, _GLD, 1000, 199_000),
        "real": _with_pairs(presets.REAL_HEADS, presets.PHOTOGRAPHS["oxford"], 1000, 19_000),
        "quick": _with_pairs(presets.QUICK, {}, 200, 1800),
    },
    claims=(
        Claim("AE, λ = 10", "PCA"),
        Claim("AE, λ = 10", "FC"),
        Claim("AE, λ = 10", "AE, λ = 0"),
        Claim("AE, λ = 10, joint, stopped", "AE, λ = 10, joint"),
    ),
    note="The paper draws its pairs from Google Landmarks, as size paper does; at the other sizes "
    "they are pairs of a query and a database image of these data.",
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
