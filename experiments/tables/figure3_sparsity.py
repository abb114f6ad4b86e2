"""Figure 3 of the paper: the effect of local losses on the sparsity of conv4 and conv5.

    python -m experiments.tables.figure3_sparsity --workdir=runs/figure3 --size=quick

Trains both heads jointly, twice with the same seed: with local gradients stopped before the
backbone, as in the paper, and with gradients that flow. In the paper, gradients that flow make both
maps much sparser than those of an ImageNet backbone, with 45 % zeros in conv4 and 82 % in conv5. At
size paper the networks are those of Tables 1 and 2, trained once in a workdir that they share.
Writes figure3_sparsity_SIZE.json and .svg into --results.
"""

import pathlib
import sys

import numpy as np
from absl import flags

from configs import quickstart
from delg_jax.benchmarks import harness
from delg_jax.cli.main import run_experiment
from delg_jax.reports.charts import line_chart
from delg_jax.sweeps import sweep
from delg_jax.training.metrics import read_records
from experiments.framework import plan, presets, program, runs, trainings
from experiments.framework.experiment import Base, Experiment, Row, Setting, Size, Training
from experiments.framework.plan import TRAINED, Options

MAPS = ("conv4", "conv5")
_QUICK = {
    "data.image_size": 96,
    "train.steps": 300,
    "train.warmup_steps": 30,
    "train.log_every": 10,
    "train.eval_every": 300,
    "train.checkpoint_every": 300,
}
Curves = dict[str, list[tuple[int, float]]]


def _row(gradients: str, training: Training, size: str) -> Row:
    return Row(f"{gradients}, {size}", (Setting(training.name, (), training),), sizes=(size,))


# Those of size quick log more often than those of the tables
_STOPPED = Training("sparsity_stopped")
_FLOWING = Training("sparsity_flowing", trainings.FLOWING.overrides)
NETWORKS = {
    "paper": {"stopped": trainings.JOINT, "flowing": trainings.FLOWING},
    "quick": {"stopped": _STOPPED, "flowing": _FLOWING},
}
EXPERIMENT = Experiment(
    name="figure3_sparsity",
    place="Figure 3: share of zeros in conv4 and conv5",
    columns=(),
    rows=tuple(
        _row(gradients, training, size)
        for size, networks in NETWORKS.items()
        for gradients, training in networks.items()
    ),
    sizes={
        "paper": presets.PAPER,
        "quick": Size(
            about="a tiny network, trained for 300 steps on rendered landmarks",
            training=Base(quickstart.get_config, overrides=_QUICK),
            evaluation=Base(quickstart.get_config, overrides=_QUICK),
            data={},
        ),
    },
)


def curves(options: Options) -> Curves:
    """Reads (step, sparsity) by gradients and map, each the mean over the seeds.

    Args:
      options: of the command line; their workdir holds the trained networks.

    Returns:
      A curve for each of the gradients and each of `MAPS`.
    """
    found: Curves = {}
    for gradients, training in NETWORKS[options.size].items():
        folders = [
            options.workdir / TRAINED / plan.folder(training, seed) for seed in options.seeds
        ]
        records = [record for folder in folders for record in read_records(folder / "logs")]
        for maps in MAPS:
            by_step: dict[int, list[float]] = {}
            for record in records:
                if f"sparsity_{maps}" in record:
                    by_step.setdefault(record["step"], []).append(record[f"sparsity_{maps}"])
            points = [(step, float(np.mean(values))) for step, values in by_step.items()]
            found[f"{gradients} {maps}"] = points
    return found


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    program.define_flags(EXPERIMENT, values, argv)


def run(values: flags.FlagValues) -> None:
    """Trains twice, writes the curves and prints their first and last values."""
    options = program.options(values)
    if program.planned(EXPERIMENT, values):
        return
    _, trained = runs.execute(EXPERIMENT, options)
    sweep.require_success(trained)
    found = curves(options)
    title = "Share of zeros in conv4 and conv5 over training steps"
    picture = line_chart(title, "training step", "share of zeros", found)
    content = {"size": options.size, "seeds": list(options.seeds), "curves": found}
    results, made_from = pathlib.Path(values.results), plan.fields(EXPERIMENT, options)
    harness.write_result(
        results, f"{EXPERIMENT.name}_{options.size}", content, chart=picture, config=made_from
    )
    print("| gradients, maps | first | last |", "| --- | ---: | ---: |", sep="\n")
    for name, points in found.items():
        print(f"| {name} | {100 * points[0][1]:.1f} % | {100 * points[-1][1]:.1f} % |")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
