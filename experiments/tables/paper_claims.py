r"""Tests whether claims of the papers hold on the rendered landmarks.

    python -m experiments.tables.paper_claims --size=quick --workdir=runs/paper_claims \
        --seed=0 --seed=1 --seed=2 --seed=3 --seed=4

Trains six networks from scratch for 400 steps with each seed; the seed also decides the landmarks.
A claim compares two rankings of the same queries, pooled over the seeds. Queries of one seed share
their networks, so the p-values hold for these trainings only. Writes paper_claims_quick.json and
.md into --results.
"""

import dataclasses
import sys

from delg_jax.cli.main import run_experiment
from experiments.framework import presets, trainings
from experiments.framework.experiment import Claim, Experiment, Row, Setting, Training, map_columns
from experiments.framework.program import program

_FEW = ("global", "global+sp", "local")
_ALL = (*_FEW, "local+sp", "local+mds", "local+mds+global")
_LENGTH = {
    "data.image_size": 96,
    "train.steps": 400,
    "train.warmup_steps": 40,
    "train.log_every": 100,
    "train.eval_every": 400,
    "train.checkpoint_every": 400,
}
_PCA = {"extract.pca_dim": 64, "extract.pca_whitening": 0.0}


def _trained(name, fields, methods=_FEW, overrides=()):
    training = Training(f"paper_claims_{name}", fields)
    return Setting(name, methods, training, dict(overrides))


JOINT = _trained("joint", {}, _ALL)
FLOWING = _trained("flowing", {"model.stop_gradient": False})
AVERAGE = _trained("average", {"model.pooling": "avg"})
SOFTMAX = _trained("softmax", {"model.global_loss": "softmax"})
FC = _trained("fc", {"model.dim_reduction": "fc"})
PCA = _trained("pca", {"model.dim_reduction": "none"}, overrides=_PCA)
ONE_BIT = Setting("one_bit", ("global+sp",), JOINT.training, trainings.ONE_BIT)

_ROWS = {
    "GeM, ArcFace": (JOINT, "global"),
    "average pooling": (AVERAGE, "global"),
    "softmax": (SOFTMAX, "global"),
    "gradients flow": (FLOWING, "global"),
    "DELG": (JOINT, "global+sp"),
    "DELG, gradients flow": (FLOWING, "global+sp"),
    "DELG, one bit": (ONE_BIT, "global+sp"),
    "DELG, fully connected": (FC, "global+sp"),
    "DELG, PCA": (PCA, "global+sp"),
    "local, autoencoder": (JOINT, "local"),
    "local, fully connected": (FC, "local"),
    "local, PCA": (PCA, "local"),
    "local, gradients flow": (FLOWING, "local"),
    "local, verified": (JOINT, "local+sp"),
    "local, embedded": (JOINT, "local+mds"),
    "local-to-global": (JOINT, "local+mds+global"),
}
_QUICKSTART = dataclasses.replace(presets.QUICK.evaluation, overrides=_LENGTH)
EXPERIMENT = Experiment(
    name="paper_claims",
    place="Claims of the papers: mAP in percent",
    columns=map_columns("oxford", "rendered", ("medium", "hard")),
    rows=tuple(Row(name, (setting,), method) for name, (setting, method) in _ROWS.items()),
    sizes={
        "quick": dataclasses.replace(
            presets.QUICK,
            about="the quickstart's network, trained for 400 steps on rendered landmarks, "
            "evaluated on others",
            training=_QUICKSTART,
            evaluation=_QUICKSTART,
        )
    },
    claims=(
        Claim("GeM, ArcFace", "average pooling"),
        Claim("GeM, ArcFace", "softmax"),
        Claim("local, autoencoder", "local, PCA"),
        Claim("DELG", "DELG, PCA"),
        Claim("local, autoencoder", "local, fully connected"),
        Claim("DELG", "DELG, fully connected"),
        Claim("GeM, ArcFace", "gradients flow"),
        Claim("DELG", "DELG, gradients flow"),
        Claim("local, autoencoder", "local, gradients flow"),
        Claim("DELG", "GeM, ArcFace"),
        Claim("DELG", "DELG, one bit"),
        Claim("local, embedded", "local, autoencoder"),
        Claim("local-to-global", "local, autoencoder"),
        Claim("local-to-global", "DELG"),
    ),
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
