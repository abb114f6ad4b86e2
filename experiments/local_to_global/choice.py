r"""Chooses the re-ranking of local-to-global on several data sets at once.

    python -m experiments.local_to_global.choice --set=NAME=WORKDIR [--set=NAME=WORKDIR ...]
        [--name=RESULT] [--others=experiments/results/local_to_global_choice.json]

Each workdir is one that `delg evaluate` wrote, with a data set and features of its own; its stored
configuration is used, and its similarity graph is built if it is missing. All settings re-rank the
same searches. The criterion is the mean gain over local search minus its standard deviation over
the data sets; the gain of a data set is the mean of its gains in mAP Medium and Hard. Leave one
out: each data set is also ranked with the setting that is best on all others. --others adds sets to
those of an earlier result, whose settings are used and whose gains take part in the choice.
Intervals and p-values are by landmark. Writes RESULT.json and RESULT.md into --results.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from delg_jax import json_files
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.data.ground_truth import landmarks_of
from delg_jax.errors import UserError
from delg_jax.evaluation import revisited, significance
from delg_jax.features import Extracted, extract
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.rerank import MdsSettings, mds
from delg_jax.retrieval import methods
from delg_jax.retrieval.ranking import Ranked, mark_skipped
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.index import build_index

GRID = {
    "short_list": (200, 400, 700),
    "dim": (10, 20, 40),
    "scale_neighbours": (2, 3, 5, 10),
    "contrast": (1.0, 1.5, 2.0),
    "weight": (0.4, 0.6, 0.8),
    "neighbours": (2, 3, 5),
    "beta": (0.5, 1.0),
}
PROFILE = MdsSettings(
    method="profile",
    short_list=700,
    dim=20,
    scale_neighbours=5,
    contrast=1.5,
    neighbours=3,
    beta=1.0,
    weight=0.6,
    keep_first=1,
)
# Not drawn: the earlier forms, and the profile without one of its parts
NAMED = {
    "profile": PROFILE,
    "without neighbours": dataclasses.replace(PROFILE, neighbours=0),
    "without the local score": dataclasses.replace(PROFILE, weight=1.0),
    "first not kept": dataclasses.replace(PROFILE, keep_first=0),
    "not scaled": dataclasses.replace(PROFILE, scale_neighbours=0, contrast=0.4),
    "all similarities": dataclasses.replace(PROFILE, dim=701),
    "short list of 200": dataclasses.replace(PROFILE, short_list=200),
    "kernel": dataclasses.replace(PROFILE, method="kernel", neighbours=5),
    "MDS": MdsSettings(
        short_list=200,
        dim=128,
        distance="complement",
        contrast=0.3,
        background_rank=800,
        weight=0.7,
        neighbours=6,
        beta=0.6,
    ),
}
PROTOCOLS = ("medium", "hard")


class DataSet(NamedTuple):
    """The local search of one workdir, and the results of the settings.

    Attributes:
      name: of the data set and its features.
      landmarks: int [Q], the landmark of each query.
      local: float [3, Q], average precision Medium and Hard and precision at 1 of local search, in
        percent; NaN for queries without positives.
      verified: float [3, Q], the same of its spatial verification.
      found: float [S, 3, Q], the same of each setting.
    """

    name: str
    landmarks: np.ndarray
    local: np.ndarray
    verified: np.ndarray
    found: np.ndarray

    def gains(self) -> np.ndarray:
        """Mean gain of each setting over local search, float [S], over the protocols that exist."""
        gain = self.found[:, : len(PROTOCOLS)] - self.local[None, : len(PROTOCOLS)]
        exists = ~np.isnan(gain).all(axis=(0, 2))
        return np.nanmean(gain[:, exists], axis=2).mean(axis=1)


def draw(count: int, seed: int) -> list[MdsSettings]:
    """Draws different settings from the grid."""
    rng = np.random.default_rng(seed)
    found: dict[MdsSettings, None] = {}
    while len(found) < count:
        fields = {name: values[rng.integers(len(values))] for name, values in GRID.items()}
        found[dataclasses.replace(PROFILE, **fields)] = None
    return list(found)


def criterion(gains: np.ndarray) -> np.ndarray:
    """Mean minus standard deviation of gains [B, S] over data sets, float [S]."""
    return gains.mean(axis=0) - gains.std(axis=0)


def leave_one_out(gains: np.ndarray) -> list[int]:
    """For each data set the index of the setting that is best on all others.

    Args:
      gains: float [B, S] of the data sets; at least two.
    """
    everything = np.arange(len(gains))
    return [int(criterion(gains[everything != out]).argmax()) for out in everything]


def measure(name: str, folder: pathlib.Path, settings: Sequence[MdsSettings]) -> DataSet:
    """Re-ranks the local search of a workdir with every setting.

    Args:
      name: of the data set.
      folder: a workdir.
      settings: to try; short lists, ranks and numbers of neighbours that exceed the database are
        cut to it.

    Returns:
      The results.
    """
    config = stored_config.read(folder)
    extracted = extract(config, folder)
    truth = extracted.data.ground_truth
    ranking = methods.search("local", extracted, SearchSettings.of(config.search))
    verified = methods.verify(
        extracted,
        ranking,
        RerankSettings.of(config.rerank).sp,
        config.seed,
        methods.junk_by_protocol(truth),
    )
    first = ranking.compared()
    graph = build_index(config, folder, extracted=extracted)
    images, listed = first.images.shape[1], graph.indices.shape[1]
    found = []
    with Progress(f"settings on {name}", len(settings), "setting") as progress:
        for one in settings:
            rank = min(one.background_rank, listed, images)
            own = dataclasses.replace(
                one, short_list=min(one.short_list, images), background_rank=rank
            )
            ranks = mds.rerank(first.images, first.similarities, graph, own)
            found.append(_score(Ranked({"all": ranks}), extracted))
            progress.advance()
    return DataSet(
        name,
        landmarks_of(truth),
        _score(Ranked({"all": first.images}), extracted),
        _score(verified, extracted),
        np.stack(found),
    )


def _score(ranked: Ranked, extracted: Extracted) -> np.ndarray:
    """Average precisions Medium and Hard, and precision at 1 Medium, float [3, Q] in percent."""
    by_protocol = mark_skipped(ranked, extracted, "local").by_protocol
    medium, hard = (by_protocol.get(name, by_protocol["all"]) for name in PROTOCOLS)
    truth = extracted.data.ground_truth
    scores = [
        revisited.evaluate(ranks.T, truth, ())[name]["aps"]
        for name, ranks in zip(PROTOCOLS, (medium, hard), strict=True)
    ]
    first = [
        revisited.evaluate(column[:, None], [entry], (1,))["medium"]["mp@1"]
        for column, entry in zip(medium, truth, strict=True)
    ]
    return 100 * np.array([*scores, first], np.float64)


def summarize(
    sets: Sequence[DataSet],
    settings: Mapping[str, MdsSettings],
    others: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """All numbers of the report, for JSON.

    Args:
      sets: with the results of `settings`.
      settings: by name, in the order of the results.
      others: by data set, the gains of the settings on sets measured earlier. They take part in the
        choice and have no rows.
    """
    by_set = {one.name: one.gains() for one in sets}
    by_set |= {name: np.asarray(row) for name, row in (others or {}).items()}
    gains = np.stack(list(by_set.values()))
    names = list(settings)
    chosen = leave_one_out(gains) if len(gains) > 1 else []
    best = int(criterion(gains).argmax())
    rows = []
    for number, one in enumerate(sets):
        wanted = {name: index for index, name in enumerate(names) if name in NAMED}
        wanted["best on all"] = best
        if chosen:
            wanted["best on the others"] = chosen[number]
        rows.append(_row(one, "local", one.local))
        rows.append(_row(one, "local+sp", one.verified))
        rows += [_row(one, name, one.found[index]) for name, index in wanted.items()]
    return {
        "settings": {name: dataclasses.asdict(one) for name, one in settings.items()},
        "gains": {name: row.tolist() for name, row in by_set.items()},
        "criterion": dict(zip(names, criterion(gains).tolist(), strict=True)),
        "best": names[best],
        "chosen": {one.name: names[index] for one, index in zip(sets, chosen, strict=False)},
        "rows": rows,
    }


def _row(one: DataSet, name: str, values: np.ndarray) -> dict[str, Any]:
    """The measures of one ranking on one data set, and its gains over local search."""
    row: dict[str, Any] = {"data": one.name, "setting": name, "queries": values.shape[1]}
    row["landmarks"] = len(np.unique(one.landmarks))
    for measure_name, mine, local in zip((*PROTOCOLS, "mp@1"), values, one.local, strict=True):
        if np.isnan(mine).all():
            continue
        row[measure_name] = significance.interval(mine, one.landmarks)._asdict()
        if values is not one.local:
            gain = significance.paired(mine, local, one.landmarks)
            row[f"{measure_name} gain"] = gain.difference._asdict() | {"p_value": gain.p_value}
    return row


def table(result: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    measures = (*PROTOCOLS, "mp@1")
    header = [
        "data",
        "re-ranking",
        *(f"{name}{end}" for name in measures for end in ("", " gain, p")),
    ]
    lines = []
    for row in result["rows"]:
        cells = [f"{row['data']} ({row['queries']} of {row['landmarks']})", row["setting"]]
        for name in measures:
            value, gain = row.get(name), row.get(f"{name} gain")
            cells.append("-" if value is None else f"{value['mean']:.2f}")
            cells.append("-" if gain is None else _gain(gain))
        lines.append(cells)
    best = result["settings"][result["best"]]
    fields = ", ".join(f"{name} {best[name]}" for name in ("method", *GRID))
    text = [markdown(header, lines), f"{len(result['settings'])} settings. Best on all: {fields}."]
    text += [f"Best without {name}: {setting}." for name, setting in result["chosen"].items()]
    return "\n\n".join(text)


def _gain(gain: Mapping[str, float]) -> str:
    bounds = "" if np.isnan(gain["low"]) else f" [{gain['low']:+.1f}, {gain['high']:+.1f}]"
    return f"{gain['mean']:+.2f}{bounds}, {gain['p_value']:.2g}"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    text = "NAME=WORKDIR, a workdir of delg evaluate; may be repeated."
    flags.DEFINE_multi_string("set", [], text, flag_values=values)
    text = "Settings to draw; those of --others if that is given."
    flags.DEFINE_integer("settings", 40, text, 0, flag_values=values)
    flags.DEFINE_string("name", "local_to_global_choice", "Name of the result.", flag_values=values)
    arguments.define_path(values, "others", "", "An earlier result, whose sets take part.")
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Re-ranks every data set with every setting, chooses, and prints the table."""
    folders = dict(_named(text) for text in values.set)
    if not folders or len(folders) < len(values.set):
        raise UserError("--set", values.set, "must name at least one workdir, each once")
    settings, others = _earlier(values.others) if values.others else (_drawn(values.settings), {})
    if values.others and values.name == pathlib.Path(values.others).stem:
        raise UserError("--name", values.name, "must not be that of --others")
    for name in folders.keys() & others.keys():
        raise UserError("--set", name, f"is a set of --others={values.others} already")
    sets = [measure(name, folder, list(settings.values())) for name, folder in folders.items()]
    result = summarize(sets, settings, others)
    text = table(result) + "\n"
    made_from = {"settings": result["settings"], "sets": list(result["gains"])}
    harness.write_result(values.results, values.name, result, text, config=made_from)
    print(text, end="")


def _drawn(count: int) -> dict[str, MdsSettings]:
    return NAMED | {f"setting {number}": one for number, one in enumerate(draw(count, seed=0))}


def _earlier(path: str) -> tuple[dict[str, MdsSettings], dict[str, list[float]]]:
    """Returns the settings of an earlier result and its gains by data set."""
    content = json_files.read(pathlib.Path(path), "--others", json_files.each(json_files.anything))
    if content is None:
        raise UserError("--others", path, "does not exist")
    try:
        settings = {name: MdsSettings(**one) for name, one in content["settings"].items()}
        gains = {name: [float(value) for value in row] for name, row in content["gains"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("--others", path, f"is no result of this program ({error})") from None
    if any(len(row) != len(settings) for row in gains.values()):
        raise UserError("--others", path, "must have one gain per setting; measure it again")
    return settings, gains


def _named(text: str) -> tuple[str, pathlib.Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise UserError("--set", text, "must be NAME=WORKDIR")
    return name, pathlib.Path(os.path.expanduser(folder))


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
