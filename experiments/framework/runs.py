"""Runs an experiment: its trainings, then its evaluations on shared features."""

import hashlib
import json
import logging
import pathlib
from typing import Any

import ml_collections

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.features import extract
from delg_jax.features.experiment import sections
from delg_jax.features.formats import sift
from delg_jax.migrations import ADDED
from delg_jax.models.delg import SOURCES
from delg_jax.sweeps import sweep
from experiments.framework import plan
from experiments.framework.experiment import Experiment, Setting
from experiments.framework.plan import EVALUATED, TRAINED, Options

_LOG = logging.getLogger(__name__)
_SHARED = "features"  # folder of the features that evaluations link to

# By name of the setting, data set and seed
Results = dict[tuple[str, str, int], sweep.Result]


def execute(experiment: Experiment, options: Options) -> tuple[Results, list[sweep.Result]]:
    """Trains and evaluates; a second call resumes.

    Args:
      experiment: to run.
      options: of the command line.

    Returns:
      The evaluations and the trainings. A failed run has an error and does not stop the others.

    Raises:
      UserError: before the first run, if a folder or field does not exist.
    """
    plan.check_places(experiment, options)
    planned = plan.evaluations(experiment, options)
    size = experiment.sizes[options.size]
    base = plan.base(size.evaluation, options)
    configs = {
        key: configuration.override(base, run.overrides) for key, (_, run) in planned.items()
    }
    trained = []
    if runs := plan.trainings(experiment, options):
        network = plan.base(size.training, options)
        trained = sweep.run(network, runs, options.workdir / TRAINED, options.overwrite)
    if experiment.measure is not None:
        return _measure(experiment, planned, configs), trained
    return _evaluate(planned, configs, base, options), trained


def first_evaluation(
    experiment: Experiment, options: Options
) -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """Returns configuration and workdir of the first evaluation, for further experiments on it."""
    setting, run = next(iter(plan.evaluations(experiment, options).values()))
    base = plan.base(experiment.sizes[options.size].evaluation, options)
    config = configuration.override(base, run.overrides)
    overrides = _prepare(setting, run, config, options)
    return configuration.override(config, overrides), options.workdir / EVALUATED / run.name


def _measure(experiment: Experiment, planned: dict, configs: dict) -> Results:
    found = {}
    for key, (_, run) in planned.items():
        _LOG.info("%s: %s", experiment.name, run.name)
        found[key] = sweep.Result(run, {"evaluate": experiment.measure(configs[key])})
    return found


def _evaluate(
    planned: dict[tuple[str, str, int], tuple[Setting, sweep.Run]],
    configs: dict[tuple[str, str, int], ml_collections.ConfigDict],
    base: ml_collections.ConfigDict,
    options: Options,
) -> Results:
    root, refused = options.workdir / EVALUATED, {}
    ready = {}
    for key, (setting, run) in planned.items():
        try:
            extra = _prepare(setting, run, configs[key], options)
        except UserError as error:
            refused[key] = sweep.Result(run, {}, str(error))
        else:
            overrides = {**run.overrides, **extra}
            ready[key] = sweep.Run(run.name, overrides, run.verbs, run.group)
    results = sweep.run(base, list(ready.values()), root, options.overwrite) if ready else []
    done = dict(zip(ready, results, strict=True))
    return {key: done.get(key) or refused[key] for key in planned}


def _prepare(
    setting: Setting, run: sweep.Run, config: ml_collections.ConfigDict, options: Options
) -> dict[str, Any]:
    """Links the shared features of a run, with SIFT if it imports that; returns further fields."""
    shared, folder = options.workdir / _SHARED, options.workdir / EVALUATED / run.name
    if not setting.imports_sift:
        link(config, folder, shared)
        return {}
    path = _sift_file(config, options.workdir)
    imported = {"extract.imported_local": str(path), "extract.imported_global": str(path)}
    link(configuration.override(config, imported), folder, shared)
    return imported


def _sift_file(config: ml_collections.ConfigDict, root: pathlib.Path) -> pathlib.Path:
    """Writes SIFT and the network's global descriptors, so that all rows have one short list."""
    name = digest(config)
    path = root / "sift" / f"{name}.h5"
    if not path.is_file():
        sift.require_opencv()
        folder = root / "sift" / name
        link(config, folder, root / _SHARED)
        sift.write(path, extract(config, folder), config)
    return path


# Fields of config.data that decide which images there are
_IMAGES = ("name", "root", "ground_truth", "distractors", "synthetic")
_DIGITS = 12  # of the digest, in the name of a folder


def digest(config: ml_collections.ConfigDict) -> str:
    """Returns the digest of all fields that decide the features of a configuration.

    Added fields count only if they change the earlier behaviour, so that features keep their folder
    when this version adds a field.

    Args:
      config: the whole tree.

    Returns:
      Hexadecimal digits.
    """
    weights = ("seed", *(f"model.{name}" for name in SOURCES))
    images = (f"data.{name}" for name in _IMAGES)
    files = (f"extract.imported_{kind}" for kind in ("local", "global"))
    fields = configuration.flatten(config, (*sections(config), *weights, *images, *files))
    fields = {n: value for n, value in fields.items() if n not in ADDED or value != ADDED[n]}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def link(config: ml_collections.ConfigDict, folder: pathlib.Path, shared: pathlib.Path) -> None:
    """Links `folder/features` to the features of this configuration in `shared`.

    A folder of features that is already there is kept.

    Args:
      config: the whole tree of an evaluation.
      folder: its workdir.
      shared: folder of all shared features.

    Raises:
      UserError: if the folders cannot be created.
    """
    place = folder / "features"
    target = (shared / digest(config)).resolve()
    try:
        target.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() and place.resolve() != target:
            place.unlink()
        if not place.exists():
            place.symlink_to(target, target_is_directory=True)
    except OSError as error:
        rule = f"must be a writable folder ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
