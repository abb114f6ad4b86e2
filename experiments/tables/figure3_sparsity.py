"""Figure 3 of the paper: the effect of local losses on the sparsity of conv4 and conv5.

    python -m experiments.tables.figure3_sparsity --workdir=runs/figure3 --size=quick

Trains both heads jointly on the synthetic landmarks, twice with the same seed: with local gradients
stopped before the backbone, as in the paper, and with gradients that flow. In the paper, gradients
that flow make both maps much sparser than those of an ImageNet backbone, with 45 % zeros in conv4
and 82 % in conv5. --size sets the number of steps and the image size; other fields can be changed,
for example --config.model.backbone=resnet18. Writes figure3_sparsity.json and .svg into --results.
"""

import pathlib
import sys

from absl import flags

from delg_jax import configuration, workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.reports.charts import line_chart
from delg_jax.sweeps import sweep
from delg_jax.training.metrics import read_records

GRADIENTS = {"stopped": True, "flowing": False}
MAPS = ("conv4", "conv5")
SIZES = {
    "quick": {
        "data.image_size": 96,
        "train.steps": 300,
        "train.warmup_steps": 30,
        "train.log_every": 10,
        "train.eval_every": 300,
        "train.checkpoint_every": 300,
    },
    "full": {"train.steps": 5000, "train.warmup_steps": 500, "train.log_every": 50},
}
Curves = dict[str, list[tuple[int, float]]]


def runs() -> list[sweep.Run]:
    """Returns a run for each choice of the gradients."""
    return [
        sweep.Run(name, {"model.stop_gradient": stop}, ("train",), name)
        for name, stop in GRADIENTS.items()
    ]


def curves(root: pathlib.Path) -> Curves:
    """Reads (step, sparsity) by gradients and map from the metrics of the runs in `root`."""
    found: Curves = {}
    for name in GRADIENTS:
        records = read_records(root / name / "logs")
        for maps in MAPS:
            field = f"sparsity_{maps}"
            points = [(r["step"], r[field]) for r in records if field in r]
            found[f"{name} {maps}"] = points
    return found


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="quickstart")
    flags.DEFINE_enum(
        "size",
        "full",
        list(SIZES),
        "Steps and image size; quick takes minutes on two cores.",
        flag_values=values,
    )
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Trains twice, writes the curves and prints their first and last values."""
    root, results = pathlib.Path(values.workdir), pathlib.Path(values.results)
    config = configuration.override(values.config, SIZES[values.size])
    outcomes = sweep.run(config, runs(), root, values.overwrite)
    sweep.require_success(outcomes)
    found = curves(root)
    title = "Share of zeros in conv4 and conv5 over training steps"
    picture = line_chart(title, "training step", "share of zeros", found)
    workdir.write_text(results / "figure3_sparsity.svg", picture)
    content = {
        "config": configuration.flatten(config, ("seed", "model", "data.image_size", "train")),
        "curves": found,
    }
    workdir.write_json(results / "figure3_sparsity.json", content)
    print("| gradients, maps | first | last |", "| --- | ---: | ---: |", sep="\n")
    for name, points in found.items():
        print(f"| {name} | {100 * points[0][1]:.1f} % | {100 * points[-1][1]:.1f} % |")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
