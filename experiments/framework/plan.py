"""The plan of an experiment: its trainings and evaluations, each once."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from delg_jax import configuration
from delg_jax.errors import UserError, require_choice
from delg_jax.sweeps.sweep import Run
from experiments.framework.experiment import Base, Experiment, Setting, Training

TRAINED, EVALUATED = "trained", "evaluated"  # folders in the workdir


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
      size: key of `Experiment.sizes`.
      workdir: of all runs; tables with the same workdir share networks and features.
      data: folder that replaces {data}.
      weights: folder that replaces {weights}.
      seeds: every training and evaluation is run with each of them.
      changes: fields of all runs, overriding those of the experiment.
      datasets: to evaluate; empty for all.
      overwrite: whether to delete outputs of another configuration instead of refusing them.
    """

    size: str
    workdir: pathlib.Path
    data: str = ""
    weights: str = ""
    seeds: tuple[int, ...] = (0,)
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    overwrite: bool = False


def base(part: Base, options: Options) -> ml_collections.ConfigDict:
    """Returns the configuration that runs start from, with the folders filled in."""
    return configuration.override(part.get_config(part.argument), _placed(part.overrides, options))


def data_sets(experiment: Experiment, options: Options) -> list[str]:
    """Returns the names of the data sets to evaluate.

    Raises:
      UserError: if the experiment lacks the size, or the size lacks a data set.
    """
    require_choice("--size", options.size, tuple(experiment.sizes))
    known = list(dict.fromkeys(column.data for column in experiment.columns_at(options.size)))
    for name in options.datasets:
        require_choice("--datasets", name, known)
    return [name for name in known if not options.datasets or name in options.datasets]


def settings(experiment: Experiment, size: str) -> list[Setting]:
    """Returns the settings of all rows of a size, each once.

    Raises:
      ValueError: if two settings have the same name.
    """
    found: dict[str, Setting] = {}
    for row in experiment.rows_at(size):
        for one in row.settings:
            if found.setdefault(one.name, one) != one:
                raise ValueError(
                    f"`rows` (setting {one.name}) must have a unique name for each setting"
                )
    return list(found.values())


def trainings(experiment: Experiment, options: Options) -> list[Run]:
    """Returns the trainings, each after the one it starts from; none if the size has none."""
    network = experiment.sizes[options.size].training
    if network is None:
        return []
    train = base(network, options).train
    steps = options.changes.get("train.steps", train.steps)
    if experiment.sizes[options.size].of_paper and "train.steps" not in options.changes:
        # The paper's number of images, whatever the batch
        steps = (
            train.steps
            * train.batch_size
            / options.changes.get("train.batch_size", train.batch_size)
        )
    warmup = options.changes.get("train.warmup_steps", train.warmup_steps)
    ordered: dict[str, Training] = {}

    def add(training: Training | None) -> None:
        if training is not None and training.name not in ordered:
            add(training.start)
            ordered[training.name] = training

    for one in settings(experiment, options.size):
        add(one.training)
    return [
        _training(one, seed, options, max(1, round(one.share * steps)), warmup)
        for one in ordered.values()
        for seed in options.seeds
    ]


def _training(training: Training, seed: int, options: Options, steps: int, warmup: int) -> Run:
    overrides = {**_placed(training.overrides, options), **_seeded(seed)}
    if training.start is not None:
        overrides["model.checkpoint"] = str(_trained(training.start, seed, options))
    overrides |= options.changes | {"train.steps": steps}
    if warmup >= steps:  # if the share has few steps
        overrides["train.warmup_steps"] = steps - 1
    return Run(folder(training, seed), overrides, ("train",), training.name)


def evaluations(
    experiment: Experiment, options: Options
) -> dict[tuple[str, str, int], tuple[Setting, Run]]:
    """Returns the evaluations by name of the setting, data set and seed."""
    size = experiment.sizes[options.size]
    found = {}
    for one in settings(experiment, options.size):
        for name in data_sets(experiment, options):
            for seed in options.seeds:
                overrides = _network(one.training, seed, options, size.training is not None)
                overrides |= _placed(size.data[name], options) | _placed(one.overrides, options)
                overrides |= {**_seeded(seed), "eval.methods": one.methods, **options.changes}
                run = Run(f"{one.name}_{name}_{seed}", overrides, ("evaluate",), one.name)
                found[one.name, name, seed] = (one, run)
    return found


def fields(experiment: Experiment, options: Options) -> dict[str, Any]:
    """All fields of all runs, by name of the run and path; those of folders are absolute."""
    rooted = dataclasses.replace(options, workdir=pathlib.Path("/"), data="/", weights="/")
    size = experiment.sizes[options.size]
    planned = [(size.evaluation, run) for _, run in evaluations(experiment, rooted).values()]
    if size.training is not None:
        planned += [(size.training, run) for run in trainings(experiment, rooted)]
    found = {}
    for part, run in planned:
        tree = configuration.override(base(part, rooted), run.overrides)
        found |= {f"{run.name}/{path}": v for path, v in configuration.flatten(tree).items()}
    return found


def _network(
    training: Training | None, seed: int, options: Options, is_trained: bool
) -> dict[str, Any]:
    """Returns the fields of `config.model` that a training sets, and the folder of its network."""
    if training is None:
        return {}
    fields = _placed(training.overrides, options)
    model = {path: value for path, value in fields.items() if path.startswith("model.")}
    if is_trained:
        model["model.checkpoint"] = str(_trained(training, seed, options))
    return model


def _trained(training: Training, seed: int, options: Options) -> pathlib.Path:
    return options.workdir / TRAINED / folder(training, seed)


def folder(training: Training, seed: int) -> str:
    """The name of the folder of a trained network, in `TRAINED`."""
    return f"{training.name}_{seed}"


def _seeded(seed: int) -> dict[str, int]:
    return {"seed": seed, "data.synthetic.seed": seed}


def _placed(overrides: Mapping[str, Any], options: Options) -> dict[str, Any]:
    return {path: place(value, options) for path, value in overrides.items()}


def place(value: Any, options: Options) -> Any:
    """Returns a value with {data} and {weights} replaced by the folders of the command line."""
    if not isinstance(value, str):
        return value
    return value.replace("{data}", options.data).replace("{weights}", options.weights)


def check_places(experiment: Experiment, options: Options) -> None:
    """Checks before the first run that all folders and weights exist.

    Raises:
      UserError: naming a missing flag, or what is missing in its folder.
    """
    wanted = places(experiment, options)
    for flag, parts in wanted.items():
        folder = getattr(options, flag)
        for part in parts:
            if not (pathlib.Path(folder) / part).exists():
                raise UserError(f"--{flag}", folder, f"must be a folder with {part}")


def places(experiment: Experiment, options: Options) -> dict[str, list[str]]:
    """What runs need, by flag of the folder (`data`, `weights`) that it is in.

    Raises:
      UserError: if a flag that is needed is not given.
    """
    size = experiment.sizes[options.size]
    used: list[Any] = [*size.evaluation.overrides.values()]
    if size.training is not None:
        used += size.training.overrides.values()
    for name in data_sets(experiment, options):
        used += size.data[name].values()
    for one in settings(experiment, options.size):
        used += [
            *one.overrides.values(),
            *(one.training.overrides if one.training else {}).values(),
        ]
    wanted = _wanted(used)
    absent = [flag for flag in wanted if not getattr(options, flag)]
    if absent:
        needed = " and ".join(f"--{flag} a folder with {wanted[flag][0]}" for flag in absent)
        raise UserError(f"--{absent[0]}", "", f"is required with --size={options.size}: {needed}")
    return wanted


def _wanted(values: Iterable[Any]) -> dict[str, list[str]]:
    """Returns, by flag of a folder, the paths in it that `values` mention."""
    texts = [value for value in values if isinstance(value, str)]
    found = {}
    for flag in ("data", "weights"):
        mark = f"{{{flag}}}"
        parts = [text.removeprefix(mark).lstrip("/") for text in texts if text.startswith(mark)]
        if parts:
            found[flag] = parts
    return found
