"""What an experiment would take: images seen, epochs, bytes and hours, before anything runs.

Hours are arithmetic from rates of result files, of benchmarks on one kind of processor: time is
taken as proportional to pixels, floating-point operations, queries and pairs of features. They say
which order of magnitude to expect, and on that machine only.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax import configuration
from delg_jax.data.synthetic.world import shots, world_size
from delg_jax.data.validation_pairs import CLASSES
from delg_jax.evaluation import gldv2_tasks
from delg_jax.models.delg import SOURCES, build
from delg_jax.models.variables import shapes
from delg_jax.reports.tables import markdown
from delg_jax.retrieval.settings import ranked_depth
from delg_jax.training.train import PUBLISHED_IMAGES, length_of
from experiments.benchmarks import bench_all
from experiments.framework import extraction_cost, plan, runs
from experiments.framework.experiment import Experiment
from experiments.framework.plan import Options
from experiments.framework.presets import SEVEN_SCALES

# Database images and queries of data sets, as published; of the others those of our files
_SIZES = {
    "revisited_oxford": (4_993, 70),
    "revisited_paris": (6_322, 70),
    "gldv2": (761_757, 117_577),
    "gldv2_recognition": (4_132_914, 117_577),
    "gldv2_clean_recognition": (1_580_470, 117_577),
    "gldv1": (CLASSES, CLASSES),
    "revisited": (1_614, 55),
}
_DISTRACTORS = 1_001_001
_CLASSES = {"gldv1": 14_951, "gldv2": 203_094, "gldv2_clean": 81_313}
_UNKNOWN_CLASSES = 100
_PHOTOGRAPHS = 954  # to learn from, at size real
# Floating-point operations beside those of ResNet-50; other backbones count as that
_OPERATIONS = {"tiny": 0.02, "resnet18": 0.44, "resnet50": 1.0, "resnet101": 1.9}
_LOCAL_SHARE = 0.25  # of a step where only the local head learns, see training_options
_KEYPOINT = 16  # bytes of a location, scale and score
_ENCODED = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "sign": 0.125}  # bytes of a dimension
_CASES = ("train", "extract_r50_7", "verify", "global_one", "local")


@dataclasses.dataclass(frozen=True)
class Step:
    """One training or evaluation.

    Attributes:
      name: of the run.
      images: seen in training, or extracted.
      epochs: of a training; None of an evaluation.
      bytes: written: checkpoints, features and rankings.
      rankings: those of them that are rankings.
      seconds: by kind of processor.
    """

    name: str
    images: int
    epochs: float | None
    bytes: float
    rankings: float
    seconds: Mapping[str, float]


class Rates:
    """Rates of the machines that all needed benchmarks were run on.

    Args:
      results: folder of the result files.
    """

    def __init__(self, results: pathlib.Path) -> None:
        by_kind: dict[str, dict[str, Any]] = {}
        for result in bench_all.stored(results):
            by_kind.setdefault(bench_all.processor(result), {})[result["name"]] = result
        self._found = {
            kind: found for kind, found in sorted(by_kind.items()) if set(_CASES) <= set(found)
        }

    def seconds(self, work: Mapping[str, float]) -> dict[str, float]:
        """Seconds for an amount of work, by kind of processor.

        Args:
          work: units of each case; of `global_one` images compared, of `local` pairs of features,
            of the others those of the benchmark.
        """
        return {
            kind: sum(amount / self._per_second(found[case]) for case, amount in work.items())
            for kind, found in self._found.items()
        }

    def size(self, case: str) -> Mapping[str, Any]:
        """The size that a case was measured at, the same on each machine."""
        return next(iter(self._found.values()))[case]["size"] if self._found else {}

    @staticmethod
    def _per_second(result: Mapping[str, Any]) -> float:
        units, size = result["implementations"][0]["units_per_second"], result["size"]
        if result["name"] == "local":
            return float(units * size["features"] ** 2 * size["images"])
        return float(units * (size["images"] if result["name"] == "global_one" else 1))


def steps(experiment: Experiment, options: Options, rates: Rates) -> list[Step]:
    """All trainings and evaluations of an experiment at a size; nothing is opened or run.

    Args:
      experiment: the table.
      options: of the command line.
      rates: of machines.

    Returns:
      The steps, in the order in which they would run.
    """
    size = experiment.sizes[options.size]
    found = []
    if size.training is not None:
        network = plan.base(size.training, options)
        for run in plan.trainings(experiment, options):
            config = configuration.override(network, run.overrides)
            found.append(_training(f"train {run.name}", config, rates))
    base, extracted = plan.base(size.evaluation, options), set()
    for _, run in plan.evaluations(experiment, options).values():
        config = configuration.override(base, run.overrides)
        if experiment.measure is not None:
            found.append(_timing(run.name, config, rates))
            continue
        features = runs.digest(config)
        found.append(_evaluation(run.name, config, rates, features not in extracted))
        extracted.add(features)
    return found


def table(experiment: Experiment, options: Options, found: Sequence[Step]) -> str:
    """The steps in Markdown, with their sum.

    Args:
      experiment: the table.
      options: of the command line.
      found: its steps.

    Returns:
      Title, table and a line about the rates.
    """
    kinds = list(dict.fromkeys(kind for step in found for kind in step.seconds))
    header = ["run", "images", "epochs", "GB written", *(f"hours, {kind}" for kind in kinds)]
    rows = [_row(step.name, [step], kinds) for step in found]
    trained = sum(step.epochs is not None for step in found)
    total = f"{trained} trainings, {len(found) - trained} evaluations"
    rows.append(_row(total, found, kinds))
    about = (
        "Hours are computed from measured rates of one machine of that kind. Features are "
        "extracted once, by the first evaluation that needs them."
    )
    title = f"# {experiment.place}, size {options.size}: plan"
    return f"{title}\n\n{markdown(header, rows)}\n\n{about}\n"


def _row(name: str, found: Sequence[Step], kinds: Iterable[str]) -> list[str]:
    epochs = "" if len(found) != 1 or found[0].epochs is None else f"{found[0].epochs:.1f}"
    hours = (sum(step.seconds.get(kind, 0.0) for step in found) / 3600 for kind in kinds)
    written = sum(step.bytes for step in found) / 1e9
    images = f"{sum(step.images for step in found):,}"
    return [name, images, epochs, f"{written:,.2f}", *(f"{value:,.2f}" for value in hours)]


def _training(name: str, config: ml_collections.ConfigDict, rates: Rates) -> Step:
    data, train = config.data, config.train
    published = PUBLISHED_IMAGES.get(data.name)
    kept = 1 - data.validation_share if published else 1.0
    length = length_of(config, round((published or _train_images(data)) * kept))
    area = (data.image_size / rates.size("train").get("side", data.image_size)) ** 2
    share = _LOCAL_SHARE if train.heads == "local" or train.freeze_backbone else 1.0
    work = length.images_seen * area * share * _OPERATIONS.get(config.model.backbone, 1.0)
    classes = config.model.num_classes or _CLASSES.get(data.name, _UNKNOWN_CLASSES)
    # Parameters and momentum in float32, of the checkpoints that are kept and the best one
    fields = configuration.flatten(config.model)
    shaping = {n: v for n, v in fields.items() if n not in (*SOURCES, "stop_gradient")}
    parameters = _parameters(json.dumps({**shaping, "num_classes": classes}))
    written = 2 * 4 * parameters * (train.keep_checkpoints + 1)
    seconds = rates.seconds({"train": work})
    return Step(name, length.images_seen, length.epochs, written, 0.0, seconds)


def _evaluation(name: str, config: ml_collections.ConfigDict, rates: Rates, extracts: bool) -> Step:
    images, queries = _SIZES.get(config.data.name) or (
        len(shots(world_size(config.data.synthetic.size), split)) for split in ("index", "query")
    )
    images += _DISTRACTORS if config.data.distractors else 0
    extract, sp, work = config.extract, config.rerank.sp, dict.fromkeys(_CASES, 0.0)
    written, extracted = 0.0, 0
    if extracts:
        extracted = images + queries
        work["extract_r50_7"] = extracted * _extraction(config, rates)
        local = config.model.local_dim if config.model.dim_reduction != "none" else extract.pca_dim
        encoded = _ENCODED[extract.local_encoding] * local + _KEYPOINT
        written += extracted * (4 * config.model.global_dim + extract.max_features * encoded)
    task = gldv2_tasks.task_of(config.data.name)
    counted = gldv2_tasks.counted(task, config.eval.recognition_top)
    depth = ranked_depth(config, counted) or images
    rankings = 0.0
    for method in config.eval.methods:
        protocols = 1 if task or not method.endswith("+sp") else 3
        rankings += 4.0 * queries * min(depth, images) * protocols
        pairs = queries * min(sp.short_list, images) * protocols
        work["verify"] += pairs * sp.max_features / 1000 if method.endswith("+sp") else 0.0
    searches = {method.partition("+")[0] for method in config.eval.methods}
    of_search = float(config.search.max_features) ** 2
    work["global_one"] += float(queries) * images if "global" in searches else 0.0
    work["local"] += queries * images * of_search if "local" in searches else 0.0
    if any("mds" in method or "diffusion" in method for method in config.eval.methods):
        compared = config.search.candidates or images  # with each image of the graph
        of_graph = float(config.search.graph_features or config.search.max_features) ** 2
        work["local"] += float(images) * compared * of_graph
    work["verify"] += config.eval.pairs + config.eval.negative_pairs if config.eval.pairs else 0.0
    seconds = rates.seconds(work)
    return Step(name, extracted, None, written + rankings, rankings, seconds)


def _train_images(data: ml_collections.ConfigDict) -> int:
    """Images to learn from of data that are not published: rendered, or our photographs."""
    is_rendered = data.name == "synthetic"
    return len(shots(world_size(data.synthetic.size), "train")) if is_rendered else _PHOTOGRAPHS


def _timing(name: str, config: ml_collections.ConfigDict, rates: Rates) -> Step:
    images = extraction_cost.IMAGES_TIMED * (extraction_cost.REPEATS + 1)
    seconds = rates.seconds({"extract_r50_7": images * _extraction(config, rates)})
    return Step(name, images, None, 0.0, 0.0, seconds)


def _extraction(config: ml_collections.ConfigDict, rates: Rates) -> float:
    """Operations for all scales of an image, beside those of the benchmark."""
    extract, size = config.extract, rates.size("extract_r50_7")
    scales = {*extract.local_scales, *extract.global_scales}
    measured = size.get("long", 512) * size.get("short", 384) * np.sum(np.square(SEVEN_SCALES))
    side = extract.max_size or 512
    pixels = float(0.75 * side**2 * np.sum(np.square(sorted(scales))) / measured)
    return pixels * _OPERATIONS.get(config.model.backbone, 1.0)


@functools.cache
def _parameters(model: str) -> int:
    """Parameters of a network, classifiers included, from the fields of `config.model` as JSON."""
    unshaping = {**dict.fromkeys(SOURCES, ""), "stop_gradient": True}
    fields = ml_collections.ConfigDict({**json.loads(model), **unshaping})
    leaves = jax.tree.leaves(shapes(build(fields))["params"])
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)
