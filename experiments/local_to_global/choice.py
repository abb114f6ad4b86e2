r"""Chooses the re-ranking of local-to-global by cross-validation over queries.

    python -m experiments.local_to_global.choice --workdir=WORKDIR --config.data.root=DIR \
        --config.model.pretrained=WEIGHTS

Draws random settings from a grid and ranks with each. Each group of queries is evaluated with the
setting that is best on all other groups, by the sum of mAP Medium and Hard. This estimate is
unbiased, because no query takes part in the choice of its own setting. The setting that is best on
all queries goes into the configuration. Writes local_to_global_choice.json and .md into --results.
"""

import dataclasses
import pathlib
import sys
from typing import NamedTuple

import ml_collections
import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation import revisited, significance
from delg_jax.features import Extracted, extract
from delg_jax.progress import Progress
from delg_jax.rerank import MdsSettings, mds
from delg_jax.retrieval import methods, skipped
from delg_jax.retrieval.ranking import Ranked
from delg_jax.search.index import build_index

GRID = {
    "short_list": (100, 200, 300),
    "dim": (16, 32, 64, 128),
    "distance": ("chord", "complement"),
    "contrast": (0.1, 0.15, 0.2, 0.3, 0.5),
    "background_rank": (0, 400, 800),
    "weight": (0.1, 0.2, 0.3, 0.5, 0.7),
    "neighbours": (0, 3, 6),
    "beta": (0.3, 0.6, 1.0),
    "concat_weight": (0.35, 0.5, 0.7, 1.0),
}
PROTOCOLS = ("medium", "hard")


class Choice(NamedTuple):
    """The result of cross-validation.

    Attributes:
      average_precisions: float [2, Q], Medium and Hard, of queries ranked with the setting that the
        other groups chose; NaN for queries without positives.
      chosen: index of the setting by group.
      best: index of the setting that is best on all queries.
    """

    average_precisions: np.ndarray
    chosen: list[int]
    best: int


def draw(count: int, seed: int) -> list[MdsSettings]:
    """Draws different settings from the grid."""
    rng = np.random.default_rng(seed)
    found: dict[MdsSettings, None] = {}
    while len(found) < count:
        fields = {name: values[rng.integers(len(values))] for name, values in GRID.items()}
        if not fields["neighbours"]:
            fields["beta"] = GRID["beta"][0]  # not used without neighbours
        found[MdsSettings(**fields)] = None
    return list(found)


def cross_validate(average_precisions: np.ndarray, groups: np.ndarray) -> Choice:
    """Chooses the setting of each group on the other groups.

    Args:
      average_precisions: float [S, 2, Q] of S settings, NaN for queries without positives.
      groups: int [Q], the group of each query.

    Returns:
      The choice; on a tie, the first setting.
    """
    found = np.full(average_precisions.shape[1:], np.nan)
    chosen = []
    for group in np.unique(groups):
        out = groups == group
        chosen.append(_best(average_precisions[:, :, ~out]))
        found[:, out] = average_precisions[chosen[-1]][:, out]
    return Choice(found, chosen, _best(average_precisions))


def _best(average_precisions: np.ndarray) -> int:
    """Returns the setting with the largest sum of mAP over the protocols."""
    counts = (~np.isnan(average_precisions)).sum(axis=2)
    means = np.nansum(average_precisions, axis=2) / np.maximum(counts, 1)
    return int(means.sum(axis=1).argmax())


def rank_all(
    config: ml_collections.ConfigDict, root: pathlib.Path, settings: list[MdsSettings]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns average precisions [S, 2, Q] of all settings and [2, Q] of local search alone."""
    extracted = extract(config, root)
    first = methods.search("local", extracted, config.search).compared()
    graph = build_index(config, root, extracted=extracted)
    pooled = [part.global_descriptors() for part in (extracted.queries, extracted.database)]
    found = []
    with Progress("settings", len(settings), "setting") as progress:
        for one in settings:
            beside = pooled if one.concat_weight < 1 else ()
            ranks = mds.rerank(first.images, first.similarities, graph, one, *beside)
            found.append(score(ranks, extracted))
            progress.advance()
    return np.stack(found), score(first.images, extracted)


def score(ranks: np.ndarray, extracted: Extracted) -> np.ndarray:
    """Returns average precisions in percent, float [2, Q], of rankings [Q, N]."""
    ranks = skipped.mark(Ranked({"all": ranks}), extracted, "local").by_protocol["all"]
    scored = revisited.evaluate(ranks.T, extracted.data.ground_truth, (1,))
    return 100 * np.array([scored[name]["aps"] for name in PROTOCOLS], np.float64)


def summarize(
    settings: list[MdsSettings], found: np.ndarray, local: np.ndarray, groups: np.ndarray
) -> dict:
    """Returns all numbers of the report, for JSON."""
    choice = cross_validate(found, groups)
    result = {"settings": len(settings), "groups": len(np.unique(groups)), "protocols": {}}
    for row, name in enumerate(PROTOCOLS):
        mine = choice.average_precisions[row]
        gain = significance.paired(mine, local[row])
        result["protocols"][name] = {
            "local": significance.interval(local[row])._asdict(),
            "cross_validated": significance.interval(mine)._asdict(),
            "gain": gain.difference._asdict() | {"p_value": gain.p_value},
            "best_on_all": float(np.nanmean(found[choice.best][row])),
        }
    result["best"] = dataclasses.asdict(settings[choice.best])
    result["chosen"] = [dataclasses.asdict(settings[number]) for number in choice.chosen]
    return result


def table(result: dict) -> str:
    """Returns the report in Markdown."""
    lines = [
        f"| mAP, {result['settings']} settings, {result['groups']} groups | local | "
        "local-to-global, cross-validated | gain, p | best on all queries |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["protocols"].items():
        gain = row["gain"]
        cells = [_interval(row["local"]), _interval(row["cross_validated"])]
        cells += [f"{_interval(gain)}, {gain['p_value']:.4f}", f"{row['best_on_all']:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    fields = ", ".join(f"{name} {result['best'][name]}" for name in GRID)
    return "\n".join([*lines, "", f"Best on all queries: {fields}."])


def _interval(row: dict) -> str:
    return f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="local_to_global:imagenet")
    text = "Consecutive queries that show one landmark and form a group."
    flags.DEFINE_integer("group", 5, text, 1, flag_values=values)
    flags.DEFINE_integer("settings", 150, "Settings to draw.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Ranks with every setting, cross-validates and prints the table."""
    settings = draw(values.settings, seed=0)
    found, local = rank_all(values.config, pathlib.Path(values.workdir), settings)
    groups = np.arange(found.shape[2]) // values.group
    result = summarize(settings, found, local, groups)
    results = pathlib.Path(values.results)
    workdir.write_json(results / "local_to_global_choice.json", result)
    text = table(result) + "\n"
    workdir.write_text(results / "local_to_global_choice.md", text)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
