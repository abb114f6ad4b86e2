"""The quickstart with three seeds: the gains of training and of each re-ranking.

    python -m experiments.tables.quickstart_seeds --workdir=runs/seeds

Evaluates a random and a trained network with each seed, which also decides the rendered landmarks.
Prints mean and standard deviation over the seeds, and the gain of each re-ranking over the search
of the same run. Fields can be changed, for example --config.data.tfds_dir=DIR. Writes
quickstart_seeds.json and .md into --results.
"""

import sys
from collections.abc import Sequence

from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.reports import sweep_tables
from delg_jax.sweeps import sweep

SEEDS = (0, 1, 2)
GROUPS = {"untrained": ("evaluate",), "trained": ("train", "evaluate")}


def runs(seeds: Sequence[int] = SEEDS) -> list[sweep.Run]:
    """Returns a run for each group and seed."""
    return [
        sweep.Run(f"{group}_{seed}", {"seed": seed, "data.synthetic.seed": seed}, verbs, group)
        for seed in seeds
        for group, verbs in GROUPS.items()
    ]


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="quickstart")
    flags.DEFINE_multi_integer("seed", SEEDS, "Seed of a run; may be repeated.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Runs everything and prints the tables."""
    results = sweep.run(values.config, runs(values.seed), values.workdir, values.overwrite)
    text = f"{sweep_tables.methods_table(results)}\n\n{sweep_tables.gains_table(results)}\n"
    print(text, end="")
    sweep.require_success(results)
    found: dict[str, dict[str, dict]] = {group: {} for group in GROUPS}
    for result in results:
        metrics = result.metrics["evaluate"]["methods"]
        found[result.run.group][str(result.run.overrides["seed"])] = metrics
    harness.write_result(values.results, "quickstart_seeds", found, text, config=values.config)


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
