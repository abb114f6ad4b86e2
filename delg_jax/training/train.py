"""Training from a configuration: checks it, prepares state and input, and runs the loop."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from delg_jax import config_files, distributed, json_files
from delg_jax.configuration import difference, flatten, within
from delg_jax.data import open_training, pipeline, skips
from delg_jax.data.sources import FileSource, ImageSource, TrainingData
from delg_jax.errors import UserError
from delg_jax.locks import held_by_first
from delg_jax.models.delg import Delg, build
from delg_jax.models.variables import Pretrained, initialize, load_pretrained, shapes
from delg_jax.training import feature_cache, optimizer
from delg_jax.training.checkpoints import FOLDER, Checkpoints, Restored, has_checkpoint
from delg_jax.training.checks import best_metric, changed_on_resume, check_fields
from delg_jax.training.interruption import StopRequest
from delg_jax.training.loop import LoopSettings, TrainingLoop, choose_validation
from delg_jax.training.step import AXIS, class_shards, place
from delg_jax.training.trained_network import require_start, start_from_checkpoint
from delg_jax.workdir import Output, root_of, stored_config, write_json

_LOG = logging.getLogger(__name__)

_IMAGES_FILE = "images.json"  # fingerprint of a run's images

# Images of the published data sets; of gldv1 those of the paper (section 4.1)
PUBLISHED_IMAGES = {"gldv1": 1_200_000, "gldv2": 4_132_914, "gldv2_clean": 1_580_470}
_DECISIVE = ("seed", "model", "data", "train")
_FREE = (  # fields under those that may change when a run resumes
    *("data.root", "data.tfds_dir", "data.exclude"),  # the images themselves are compared
    *("data.ground_truth", "data.distractors"),  # of retrieval
    *("data.beam_options", "data.memory_megabytes", "data.max_skipped", "data.workers"),
    *("train.accumulation_steps", "train.shard_classifier"),
    *("train.log_every", "train.eval_every", "train.eval_images", "train.checkpoint_every"),
    *("train.keep_checkpoints", "train.best_metric", "train.chance_after"),
    *("train.tensorboard", "train.wandb"),
    *("train.cache_gigabytes", "train.interrupted_status", "train.resume_with"),
)


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> dict[str, float]:
    """Trains a network, or resumes the run in `workdir`.

    Args:
      config: the whole tree.
      workdir: gets `checkpoints/` and `logs/`.
      overwrite: whether to delete a run of another configuration instead of refusing it.

    Returns:
      The last record of metrics, including validation.

    Raises:
      UserError: if the configuration or the data is invalid, another job trains in `workdir`, or
        the loss becomes NaN or infinite.
      Interrupted: after SIGTERM or Ctrl-C, and the checkpoint that follows it.
    """
    root = root_of(workdir)
    check_fields(config)
    with StopRequest(config.train.interrupted_status) as stop:
        with stop.at_once():
            if not has_checkpoint(root / FOLDER):
                require_start(config)
            data = open_training(config.data)
        config = with_classes(config, data)

        def claim() -> None:
            _claim_folders(root, config, data, overwrite)

        with held_by_first(root / FOLDER, claim, "training run"):
            return _train(config, data, root, stop)


def _train(
    config: ml_collections.ConfigDict, data: TrainingData, root: pathlib.Path, stop: StopRequest
) -> dict[str, float]:
    """Trains to the end in a folder that is ours; returns the last record of metrics."""
    _LOG.info("%s", length_of(config, len(data.train)))
    module = build(config.model, **module_options(config.train))
    shards = class_shards(config.model.num_classes, config.train.shard_classifier)
    settings = LoopSettings.of(config.train)
    tx = optimizer.create_optimizer(settings.optimizer, shards)
    skip_log = skips.SkipLog((root / "logs" / "skipped_events.csv").resolve())
    train, best = config.train, best_metric(config)
    with (
        Checkpoints(
            root / FOLDER, config.model, train.keep_checkpoints, best, config
        ) as checkpoints,
        contextlib.ExitStack() as stack,
    ):
        with stop.at_once():
            state, validated = _start(config, module, tx, checkpoints)
            batches = _open_batches(config, module, state, data, root, skip_log)
            stack.enter_context(contextlib.closing(batches))
            loop = TrainingLoop(
                settings,
                pipeline.InputSettings.of(config.data),
                module.clone(class_shards=shards),
                tx,
                choose_validation(data.validation, train.eval_images, config.data.split_seed),
                root / "logs",
                skip_log,
            )
        with jax.default_matmul_precision(train.matmul_precision):
            record = loop.run(place(state, shards), batches, checkpoints, stop, validated)
    if distributed.is_first():
        skips.report(root / "logs", skip_log.read(), config.data.max_skipped)
        write_json(root / "train_metrics.json", record)
    distributed.wait_for_all("trained")
    return record


def _start(
    config: ml_collections.ConfigDict,
    module: Delg,
    tx: optax.GradientTransformation,
    checkpoints: Checkpoints,
) -> Restored:
    """The state to start from: of the latest checkpoint, or else of fresh or given weights."""
    if checkpoints.latest() is None:
        variables = initialize(module, jax.random.key(config.seed))
        variables = load_pretrained(module, variables, Pretrained.of(config.model))
        state = optimizer.create_state(start_from_checkpoint(variables, config), tx)
        return Restored(state, validated=True)
    like = jax.eval_shape(lambda v: optimizer.create_state(v, tx), shapes(module))
    restored = checkpoints.restore(like)
    _LOG.info("resumed at step %d", int(restored.state.step))
    return restored


@dataclasses.dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
      steps: number of updates.
      batch_size: images in an update.
      train_images: images to learn from.
    """

    steps: int
    batch_size: int
    train_images: int

    @property
    def images_seen(self) -> int:
        """Images in all updates."""
        return self.steps * self.batch_size

    @property
    def epochs(self) -> float:
        """How often each image is seen."""
        return self.images_seen / self.train_images

    def __str__(self) -> str:
        """Returns one line for a reader."""
        return (
            f"{self.images_seen:,} images in {self.steps:,} steps of {self.batch_size}: "
            f"{self.epochs:.1f} epochs of {self.train_images:,} images"
        )


def length_of(config: ml_collections.ConfigDict, train_images: int) -> Length:
    """The length of the training that a configuration describes, on a number of images."""
    return Length(config.train.steps, config.train.batch_size, train_images)


def length_of_recipe(name: str) -> Length:
    """The length of a recipe on its published data set, as `--config` names it.

    Args:
      name: config file or name of one of ours, and its argument after a colon, for example
        `delg_r50_gld:devices=32`.

    Raises:
      UserError: if the number of images of its data set is not published.
    """
    file, _, argument = name.partition(":")
    config = config_files.run(file, argument)
    images = PUBLISHED_IMAGES.get(config.data.name)
    if images is None:
        rule = f"has no published number of images, as {', '.join(PUBLISHED_IMAGES)} have"
        raise UserError("config.data.name", config.data.name, rule)
    return length_of(config, round(images * (1 - config.data.validation_share)))


def with_classes(
    config: ml_collections.ConfigDict, data: TrainingData
) -> ml_collections.ConfigDict:
    """A copy of the tree with the number of classes of the data in `config.model.num_classes`."""
    found = len(data.classes)
    if config.model.num_classes not in (0, found):
        rule = f"must be 0 or the {found} classes of the training data"
        raise UserError("config.model.num_classes", config.model.num_classes, rule)
    config = config.copy_and_resolve_references()
    config.model.num_classes = found
    return config.lock()


def module_options(train: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields of `Delg` that `config.train` decides."""
    return {
        "dtype": jnp.dtype(train.dtype),
        "freeze_backbone": train.freeze_backbone or train.heads == "local",
        "freeze_norm": train.batch_norm == "frozen",
        "norm_axis": AXIS if train.batch_norm == "sync" else None,
        "norm_momentum": train.norm_momentum,
        "initial_scale": train.arcface_scale,
    }


def _claim_folders(
    root: pathlib.Path, config: ml_collections.ConfigDict, data: TrainingData, overwrite: bool
) -> None:
    """Binds the folders of the run to this configuration and these images."""
    decisive = tuple(path for path in flatten(config, _DECISIVE) if path not in _FREE)
    kept = tuple(path for path in decisive if path not in changed_on_resume(config))
    found = _fingerprint(data)
    for folder in (root / "logs", root / FOLDER):
        same = functools.partial(_require_same, folder, found)
        Output.of(folder, config, kept).claim_usable(same, overwrite)
        output = Output.of(folder, config, decisive)
        if not output.is_there():  # what `train.resume_with` names has changed
            before = within(stored_config(folder), decisive)
            changes = difference(before, flatten(config, decisive))
            _LOG.info("%s: resumes with %s", folder, "; ".join(changes))
            output.describe()


def _open_batches(
    config: ml_collections.ConfigDict,
    module: Delg,
    state: optimizer.TrainState,
    data: TrainingData,
    root: pathlib.Path,
    skip_log: skips.SkipLog,
) -> pipeline.Batches:
    """The input of this process: images, or cached maps of a frozen backbone."""
    read, train = None, config.train
    images, variables = pipeline.InputSettings.of(config.data), state.variables
    if train.cache_features:
        folder = root.resolve() / feature_cache.FOLDER
        made_of = feature_cache.made_of(variables, data.train)
        Output.of(folder, config, feature_cache.DECIDING_FIELDS, made_of).claim(overwrite=True)
        limits = train.batch_size, train.cache_gigabytes
        read = feature_cache.build(module, variables, data.train, images, *limits, folder, skip_log)
    return pipeline.training_batches(
        data.train,
        images,
        train.batch_size,
        config.seed,
        skip_log,
        distributed.shard(),
        read,
        start=int(state.step),
    )


_SOURCE = json_files.fields(
    {"images": json_files.count, "labelled": json_files.text, "contents": json_files.text}
)
_CHECK = json_files.fields({"classes": json_files.text, "train": _SOURCE, "validation": _SOURCE})


def _fingerprint(data: TrainingData) -> dict[str, Any]:
    """Counts and digests of the training and validation images, wherever they are stored.

    There is one digest of names and labels, and one of contents. The latter covers the digests that
    a prepared data set stores, or the sizes of files (a copy has other times), or else is empty.
    """
    sources = {"train": data.train, "validation": data.validation}
    return {
        "classes": _digest(data.classes),
        **{name: _of_source(source) for name, source in sources.items()},
    }


def _require_same(folder: pathlib.Path, found: dict[str, Any]) -> None:
    """Stores the fingerprint of a run's images in its folder, or compares it with the stored one.

    Args:
      folder: of the run.
      found: `_fingerprint` of the current images.

    Raises:
      UserError: if the run was trained on other images.
    """
    remedy = "--overwrite deletes the run, or use another --workdir"
    before = json_files.read(folder / _IMAGES_FILE, "images of a run", _CHECK, remedy)
    if before is None:  # a new run, or one of an earlier version
        write_json(folder / _IMAGES_FILE, found)
        return
    changes = [
        f"{name}: {change}"
        for name in ("train", "validation")
        if (change := _change(before[name], found[name]))
    ]
    if before["classes"] != found["classes"]:
        changes.append("other classes")
    if changes:
        rule = f"was trained on other images ({'; '.join(changes)}); {remedy}"
        raise UserError("workdir", str(folder), rule)


def _change(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before["images"] != now["images"]:
        return f"{before['images']} -> {now['images']} images"
    if before["labelled"] != now["labelled"]:
        return "other names or labels"
    contents = {before["contents"], now["contents"]}
    return "other contents" if len(contents) > 1 and "" not in contents else ""


def _of_source(source: ImageSource) -> dict[str, Any]:
    labelled = zip(source.names, source.labels.tolist(), strict=True)
    return {
        "images": len(source),
        "labelled": _digest(map(list, labelled)),
        "contents": _contents(source),
    }


def _contents(source: ImageSource) -> str:
    if isinstance(source, FileSource):
        return _digest(source.stamps(range(len(source)))[:, 0].tolist())
    stored = getattr(source, "digests", [])
    return _digest(stored) if stored and all(stored) else ""


def _digest(values: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for value in values:
        found.update(json.dumps(value).encode() + b"\n")
    return found.hexdigest()
