"""Checks of a training's configuration before anything runs: each field, then fields together."""

import dataclasses
import importlib.util
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from delg_jax import config_files, data
from delg_jax.configuration import flatten, require_seed
from delg_jax.data import pipeline
from delg_jax.errors import UserError, require_choice
from delg_jax.losses import LossWeights
from delg_jax.models.delg import build
from delg_jax.models.weights.names import NAMINGS
from delg_jax.training.loop import VALIDATION
from delg_jax.training.optimizer import OptimizerSettings

_LOG = logging.getLogger(__name__)

_SECTIONS = ("seed", "model", "data", "train")
_LARGEST_STATUS = 255  # exit status of a program
AUTO = "auto"  # best metric
# Fields that `train.resume_with` may name: none changes the shape of the state or the input
CHANGEABLE = (
    "model.pretrained",
    "model.pretrained_source",
    "model.pretrained_mapping",
    "model.checkpoint",
    *(
        f"train.{name}"
        for name in (
            *("steps", "learning_rate", "warmup_steps", "momentum", "weight_decay", "clip_norm"),
            *("arcface_margin", "global_weight", "reconstruction_weight", "attention_weight"),
            *("dtype", "matmul_precision"),
        )
    ),
)


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field may have.

    Attributes:
      low: the least.
      high: the largest.
      above: whether `low` itself is too small.
      below: whether `high` itself is too large.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN never is."""
        is_high_enough = value > self.low if self.above else value >= self.low
        is_low_enough = value < self.high if self.below else value <= self.high
        return is_high_enough and is_low_enough and math.isfinite(value)

    def __str__(self) -> str:
        """Returns the rule, as a sentence without a subject."""
        if self.high == math.inf:
            return f"must be {'above' if self.above else 'at least'} {self.low:g}"
        return f"must be from {self.low:g} to {'below ' if self.below else ''}{self.high:.4g}"


_COUNT, _POSITIVE, _NOT_NEGATIVE = Range(1), Range(0, above=True), Range(0)
_SHARE = Range(0, 1, below=True)
RANGES = {
    "seed": Range(0, 2**32, below=True),
    "model.conv4_stride": _COUNT,
    "model.conv4_block": _NOT_NEGATIVE,
    "model.gem_power": _POSITIVE,
    "model.global_dim": _COUNT,
    "model.attention_dim": _COUNT,
    "model.local_dim": _COUNT,
    "model.num_classes": _NOT_NEGATIVE,
    **{f"data.{name}": Range(least) for name, least in data.LEAST.items()},
    "data.split_seed": _NOT_NEGATIVE,
    "data.validation_share": _SHARE,
    "data.synthetic.seed": _NOT_NEGATIVE,
    "data.image_size": _COUNT,
    "train.steps": _COUNT,
    "train.batch_size": _COUNT,
    "train.accumulation_steps": _COUNT,
    "train.learning_rate": _POSITIVE,
    "train.warmup_steps": _NOT_NEGATIVE,
    "train.momentum": _SHARE,
    "train.norm_momentum": _SHARE,
    "train.weight_decay": _SHARE,
    "train.clip_norm": _POSITIVE,
    "train.cache_gigabytes": _POSITIVE,
    "train.arcface_margin": Range(0, math.pi / 2, below=True),
    "train.arcface_scale": _POSITIVE,
    "train.global_weight": _NOT_NEGATIVE,
    "train.reconstruction_weight": _NOT_NEGATIVE,
    "train.attention_weight": _NOT_NEGATIVE,
    "train.log_every": _COUNT,
    "train.eval_every": _COUNT,
    "train.eval_images": _NOT_NEGATIVE,
    "train.checkpoint_every": _COUNT,
    "train.keep_checkpoints": _COUNT,
    "train.chance_after": _NOT_NEGATIVE,
    "train.interrupted_status": Range(0, _LARGEST_STATUS),
}
CHOICES = {
    "model.pretrained_source": ("", *NAMINGS),
    "data.synthetic.size": ("small", "tiny"),
    "train.heads": ("joint", "global", "local"),
    "train.batch_norm": ("train", "frozen", "sync"),
    "train.dtype": ("float32", "bfloat16"),
    "train.matmul_precision": ("default", "high", "highest"),
}


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Checks every field of seed, model, data and train; logs those that have no effect.

    Args:
      config: the whole tree.

    Raises:
      UserError: naming the first invalid field.
    """
    fields = flatten(config, _SECTIONS)
    for path, choices in CHOICES.items():
        require_choice(f"config.{path}", fields[path], tuple(choices))
    data.require_set(config.data.name, "training")
    require_seed(config)
    for path, allowed in RANGES.items():
        if not allowed.holds(fields[path]):
            raise UserError(f"config.{path}", fields[path], str(allowed))
    pipeline.InputSettings.of(config.data)
    build(config.model)
    for rule in _TOGETHER:
        rule(config)
    if unused := without_effect(config):
        _LOG.info("fields without effect: %s", "; ".join(unused))


def _check_heads(config: ml_collections.ConfigDict) -> None:
    if config.train.heads == "local" and not config.model.local_head:
        rule = "needs a local head (config.model.local_head=True)"
        raise UserError("config.train.heads", "local", rule)


def _check_weights(config: ml_collections.ConfigDict) -> None:
    """Refuses losses that are all weighted with zero."""
    names = ["global_weight"] if config.train.heads != "local" else []
    if config.train.heads != "global" and config.model.local_head:
        names.append("attention_weight")
        names += ["reconstruction_weight"] * (config.model.dim_reduction == "ae")
    if not any(config.train[name] for name in names):
        others = f", or that of {', '.join(names[1:])}," if names[1:] else ""
        rule = f"must be above 0{others} or nothing is learned"
        raise UserError(f"config.train.{names[0]}", config.train[names[0]], rule)


def _check_batch(config: ml_collections.ConfigDict) -> None:
    train, devices = config.train, jax.device_count()
    if train.batch_size % (devices * train.accumulation_steps):
        rule = f"must be a positive multiple of the {devices} devices"
        steps = train.accumulation_steps
        rule += f" times config.train.accumulation_steps={steps}" if steps > 1 else ""
        raise UserError("config.train.batch_size", train.batch_size, rule)


def _check_schedule(config: ml_collections.ConfigDict) -> None:
    OptimizerSettings.of(config.train)


def _check_best_metric(config: ml_collections.ConfigDict) -> None:
    best, known = best_metric(config), metric_names(config)
    if best and best not in known:
        raise UserError("config.train.best_metric", best, f"must be one of {', '.join(known)}")


def _check_cache(config: ml_collections.ConfigDict) -> None:
    """Refuses to cache feature maps unless each image has the same maps in every epoch."""
    data, train = config.data, config.train
    if not train.cache_features:
        return
    if not (train.freeze_backbone or train.heads == "local"):
        rule = "needs a backbone that does not learn (config.train.freeze_backbone=True)"
        raise UserError("config.train.cache_features", True, rule)
    if jax.process_count() > 1:
        rule = f"needs a single process, not {jax.process_count()}"
        raise UserError("config.train.cache_features", True, rule)
    needed = {"crop_area": (1.0, 1.0), "crop_aspect": (1.0, 1.0), "flip": False}
    for field, value in needed.items():
        found = tuple(data[field]) if isinstance(value, tuple) else data[field]
        if found != value:
            rule = f"must be {value} with config.train.cache_features: maps are of whole images"
            raise UserError(f"config.data.{field}", found, rule)


def _check_wandb(config: ml_collections.ConfigDict) -> None:
    project = config.train.wandb
    if project and importlib.util.find_spec("wandb") is None:
        rule = "needs the package wandb: pip install 'delg_jax[wandb]'"
        raise UserError("config.train.wandb", project, rule)


def _check_resume_with(config: ml_collections.ConfigDict) -> None:
    for path in changed_on_resume(config):
        require_choice("config.train.resume_with", path, CHANGEABLE)


_TOGETHER: tuple[Callable[[ml_collections.ConfigDict], None], ...] = (
    _check_heads,
    _check_weights,
    _check_batch,
    _check_schedule,
    _check_best_metric,
    _check_cache,
    _check_resume_with,
    _check_wandb,
)


def changed_on_resume(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The fields that `config.train.resume_with` lets change, by dotted path."""
    names = (name.strip() for name in config.train.resume_with.split(","))
    return tuple(name.removeprefix("config.") for name in names if name)


def best_metric(config: ml_collections.ConfigDict) -> str:
    """The metric whose best checkpoint is kept: accuracy of the head that learns, unless named."""
    if config.train.best_metric != AUTO:
        return config.train.best_metric
    head = "global" if _learns_global(config) else "attention"
    return f"{VALIDATION}{head}_accuracy"


def metric_names(config: ml_collections.ConfigDict) -> list[str]:
    """The metrics that can decide which checkpoint is the best, those of validation first."""
    names = ["loss"]
    if _learns_global(config):
        names += ["global_loss", "global_accuracy"]
    if _learns_local(config):
        names += ["attention_loss", "attention_accuracy"]
        names += ["reconstruction_loss"] * (config.model.dim_reduction == "ae")
    return [*(f"{VALIDATION}{name}" for name in names), *names]


def _learns_global(config: ml_collections.ConfigDict) -> bool:
    return LossWeights.of(config.train).which != "local"


def _learns_local(config: ml_collections.ConfigDict) -> bool:
    return LossWeights.of(config.train).which != "global" and config.model.local_head


def _backbone_is_fixed(config: ml_collections.ConfigDict) -> bool:
    return config.train.freeze_backbone or config.train.heads == "local"


_LOCAL_FIELDS = ("attention_pooling", "attention_normalize", "dim_reduction", "stop_gradient")
# Fields, why they have no effect, and when
_WITHOUT_EFFECT: tuple[
    tuple[tuple[str, ...], str, Callable[[ml_collections.ConfigDict], bool]], ...
] = (
    (
        ("model.gem_power", "model.gem_learned"),
        "model.pooling is not gem",
        lambda c: c.model.pooling != "gem",
    ),
    (("model.global_dim",), "model.whitening is False", lambda c: not c.model.whitening),
    (
        (
            *(f"model.{name}" for name in _LOCAL_FIELDS),
            *("model.attention", "model.attention_dim", "model.local_dim"),
        ),
        "model.local_head is False",
        lambda c: not c.model.local_head,
    ),
    (
        ("model.attention_dim",),
        "model.attention is norm",
        lambda c: c.model.local_head and c.model.attention == "norm",
    ),
    (
        ("model.local_dim",),
        "model.dim_reduction is none",
        lambda c: c.model.local_head and c.model.dim_reduction == "none",
    ),
    (("model.stop_gradient",), "the backbone does not learn", _backbone_is_fixed),
    (
        ("model.pretrained",),
        "model.checkpoint replaces it",
        lambda c: bool(c.model.checkpoint),
    ),
    (
        ("model.pretrained_mapping",),
        "model.pretrained is empty",
        lambda c: not c.model.pretrained,
    ),
    (
        ("train.arcface_margin", "train.arcface_scale", "train.arcface_scale_learned"),
        "model.global_loss is softmax",
        lambda c: c.model.global_loss == "softmax",
    ),
    (
        ("train.arcface_margin", "train.arcface_scale_learned", "train.global_weight"),
        "train.heads is local",
        lambda c: c.train.heads == "local",
    ),
    (
        ("train.attention_weight", "train.reconstruction_weight"),
        "the local head does not learn",
        lambda c: not _learns_local(c),
    ),
    (
        ("train.reconstruction_weight",),
        "model.dim_reduction is not ae",
        lambda c: _learns_local(c) and c.model.dim_reduction != "ae",
    ),
    (
        ("train.norm_momentum",),
        "train.batch_norm is frozen",
        lambda c: c.train.batch_norm == "frozen",
    ),
    (
        ("train.cache_gigabytes",),
        "train.cache_features is False",
        lambda c: not c.train.cache_features,
    ),
    (
        ("data.validation_share", "data.split_seed", "data.beam_options"),
        "the data set has its own validation images and is not prepared",
        lambda c: c.data.name in ("synthetic", "folder"),
    ),
    (
        ("data.synthetic.size", "data.synthetic.seed"),
        "data.name is not synthetic",
        lambda c: c.data.name != "synthetic",
    ),
    (("data.root",), "data.name is synthetic", lambda c: c.data.name == "synthetic"),
    (("data.tfds_dir",), "data.name is folder", lambda c: c.data.name == "folder"),
    (
        ("data.ground_truth", "data.distractors"),
        "training has no queries",
        lambda _: True,
    ),
    (
        ("train.chance_after",),
        "train.steps ends before",
        lambda c: c.train.chance_after > c.train.steps,
    ),
)


def without_effect(config: ml_collections.ConfigDict) -> list[str]:
    """Fields of model, data and train that differ from the default but cannot matter, and why."""
    before = flatten(config_files.run("default"))
    now: dict[str, Any] = flatten(config, _SECTIONS)
    found: dict[str, str] = {}
    for paths, reason, holds in _WITHOUT_EFFECT:
        if holds(config):
            found |= {path: reason for path in paths if path not in found}
    return [
        f"config.{path} ({reason})" for path, reason in found.items() if now[path] != before[path]
    ]
