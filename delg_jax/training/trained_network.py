"""The network to extract with, or to start training from: found, checked and restored."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import ml_collections
import orbax.checkpoint as ocp

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.migrations import ADDED, completed
from delg_jax.models.delg import SOURCES, Delg, build
from delg_jax.models.variables import (
    Pretrained,
    load_pretrained,
    pretrained_variables,
    shapes,
)
from delg_jax.training.checkpoints import (
    FOLDER,
    explain_read_errors,
    has_checkpoint,
    intact_meta,
    require_intact,
)
from delg_jax.workdir import CONFIG_FILE, stored_config

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_TRIES = 20  # to read a checkpoint that training replaces

# Fields of config.model that decide the local head, and the variables of it
_LOCAL_FIELDS = (
    "local_head",
    *("attention", "attention_dim", "attention_pooling", "attention_normalize"),
    *("dim_reduction", "local_dim"),
)
_ADDED = tuple(name for name in ADDED if name.startswith("model."))  # since the first version
_LOCAL = ("attend", "reduce", "local_classifier")
_CLASSIFIERS = ("global_classifier", "local_classifier")


def load_model(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> tuple[Delg, Any]:
    """Loads the network to extract with: trained, pretrained or random, in this order.

    The checkpoint that `config.model.checkpoint` names (a workdir, its checkpoint folder, or one
    checkpoint) takes precedence over one in `workdir`, unless the run in `workdir` started from it.
    Without a checkpoint, `config.model.pretrained` fills the network; weights that lack a head of
    which features are made are refused.

    Args:
      config: the whole tree.
      workdir: searched for `checkpoints/`.

    Returns:
      The network and its variables.

    Raises:
      UserError: if the checkpoint or the weights do not fit `config.model`.
    """
    found = find_checkpoint(config.model.checkpoint, workdir)
    if found is None:
        if not config.model.pretrained:
            _LOG.warning(
                "%s has no checkpoint, and config.model.pretrained = '': the network is random; "
                "train it first, or give --weights",
                workdir,
            )
        module = build(config.model)
        key = jax.random.key(config.seed)
        pretrained = Pretrained.of(config.model)
        return module, pretrained_variables(module, key, pretrained, complete=True)
    return _restore(configuration.flatten(config.model), *found)


def start_from_checkpoint(variables: Any, config: ml_collections.ConfigDict) -> Any:
    """Replaces fresh variables with those of `config.model.checkpoint`; a no-op if it is empty.

    Args:
      variables: of the network to train, classifiers included.
      config: the whole tree, with the number of classes of the training data.

    Returns:
      Variables of the same structure. Classifiers stay fresh if the checkpoint has another number
      of classes, and so does the local head if it alone is trained and the checkpoint has another.

    Raises:
      UserError: if there is no checkpoint, or it holds another network.
    """
    if not config.model.checkpoint:
        return variables
    model, folder = configuration.flatten(config.model), _locate(config.model.checkpoint)
    asked = _asked_of_start(model, config.train.heads, *folder)
    module, restored = _restore(asked, *folder)
    own = set(_CLASSIFIERS if module.num_classes != model["num_classes"] else ())
    if any(asked[name] != model[name] for name in _LOCAL_FIELDS):
        own |= set(_LOCAL)
    return {
        kind: {
            **{name: value for name, value in restored[kind].items() if name not in own},
            **{name: value for name, value in fresh.items() if name in own},
        }
        for kind, fresh in variables.items()
    }


def _asked_of_start(
    model: dict[str, Any], heads: str, folder: pathlib.Path, step: int | None
) -> dict[str, Any]:
    """The network that a checkpoint must hold for training of these heads to start from it.

    It may have another number of classes, and where only the local head is trained, another one.
    """
    stored = _meta(folder, step)["model"] if heads == "local" else {}
    local = {name: stored[name] for name in _LOCAL_FIELDS if name in stored}
    return {**model, **local, "num_classes": 0}


def require_start(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError unless the weights that training starts from exist and fit the network."""
    if config.model.checkpoint:
        folder, step = _locate(config.model.checkpoint)
        model = configuration.flatten(config.model)
        asked = _asked_of_start(model, config.train.heads, folder, step)
        _stored_module(asked, _meta(folder, step)["model"], folder)
    else:
        empty: dict[str, Any] = {"params": {}, "batch_stats": {}}
        load_pretrained(build(config.model), empty, Pretrained.of(config.model))


def find_checkpoint(named: str, workdir: pathlib.Path) -> tuple[pathlib.Path, int | None] | None:
    """Folder and step (None for the latest) of the checkpoint to extract with, or None.

    Args:
      named: `config.model.checkpoint`.
      workdir: searched for `checkpoints/`.
    """
    own = workdir / FOLDER
    if named and not (has_checkpoint(own) and _started_from(own, named)):
        return _locate(named)
    return (own, None) if has_checkpoint(own) else None


def attention_thresholds(checkpoint: str | pathlib.Path) -> dict[str, float]:
    """Attention quantiles in the last step before a checkpoint, candidates for tau (section 4.1).

    Args:
      checkpoint: a workdir, its checkpoint folder, or one checkpoint.

    Returns:
      Scores `attention_p50` (median) and `attention_p75`.

    Raises:
      UserError: if there is no checkpoint, or it was trained without a local head.
    """
    folder, step = _locate(str(checkpoint))
    meta = _meta(folder, step)
    if not meta.get("attention"):
        rule = "holds no quantiles of the attention"
        raise UserError("config.model.checkpoint", str(checkpoint), rule)
    return meta["attention"]


def _locate(checkpoint: str) -> tuple[pathlib.Path, int | None]:
    """Folder and step (None for the latest) of a checkpoint given as `config.model.checkpoint`."""
    path = pathlib.Path(checkpoint)
    if path.name.isdigit() and path.is_dir() and not has_checkpoint(path / FOLDER):
        return path.parent, int(path.name)
    for folder in (path, path / FOLDER):
        if has_checkpoint(folder):
            return folder, None
    rule = "must be the workdir of a training run with a checkpoint"
    raise UserError("config.model.checkpoint", checkpoint, rule)


def _started_from(folder: pathlib.Path, checkpoint: str) -> bool:
    """Whether the run in `folder` started from `checkpoint`, and so supersedes it."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    return stored_config(folder).get("model.checkpoint") == checkpoint


def _meta(folder: pathlib.Path, step: int | None) -> dict[str, Any]:
    """The `meta` of a checkpoint in `folder`; None for the latest."""
    return _read(folder, step, lambda manager, found, meta: meta)


def _read(
    folder: pathlib.Path,
    step: int | None,
    use: Callable[[ocp.CheckpointManager, int, dict[str, Any]], T],
) -> T:
    """Opens the checkpoints in `folder`, and again if training replaced them meanwhile.

    Args:
      folder: of the checkpoints.
      step: of the checkpoint; None for the latest.
      use: gets their manager, the step and its `meta`.

    Returns:
      What `use` returned.

    Raises:
      UserError: if the checkpoint is damaged.
    """
    for tries in range(_TRIES):
        before = _steps(folder)
        try:
            with _opened(folder, step) as (manager, found, meta):
                return use(manager, found, meta)
        except UserError:
            if tries == _TRIES - 1 or _steps(folder) == before:
                raise
        _LOG.info("%s: training has replaced the checkpoint, reading again", folder)
    raise AssertionError  # the last try returns or raises


def _steps(folder: pathlib.Path) -> set[tuple[str, int]]:
    """Names of the checkpoints in `folder`, and what tells a new one of the same name."""
    found = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.isdigit():
                found.add((entry.name, entry.inode()))
    return found


@contextlib.contextmanager
def _opened(
    folder: pathlib.Path, step: int | None
) -> Iterator[tuple[ocp.CheckpointManager, int, dict[str, Any]]]:
    options = ocp.CheckpointManagerOptions(read_only=True)
    with (
        explain_read_errors(folder),
        ocp.CheckpointManager(folder.resolve(), options=options) as manager,
    ):
        step = manager.latest_step() if step is None else step
        stored = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        yield manager, step, intact_meta(stored["meta"], folder)


def _restore(model: dict[str, Any], folder: pathlib.Path, step: int | None) -> tuple[Delg, Any]:
    """Restores the network of a checkpoint in `folder` and its variables; None for the latest."""

    def restore(manager: ocp.CheckpointManager, found: int, meta: dict[str, Any]) -> Any:
        """The network and its variables of one step."""
        module = _stored_module(model, meta["model"], folder)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes(module)
        )
        restored = manager.restore(
            found, args=ocp.args.Composite(variables=ocp.args.StandardRestore(target))
        )
        require_intact(restored["variables"], meta, folder)
        return module, restored["variables"]

    return _read(folder, step, restore)


def _stored_module(ours: dict[str, Any], stored: dict[str, Any], folder: pathlib.Path) -> Delg:
    """Builds the network that the checkpoint holds; refused if `config.model` is another."""
    earlier = completed({f"model.{name}": value for name, value in stored.items()}, _ADDED)
    stored = {name.removeprefix("model."): value for name, value in earlier.items()}
    free = {*SOURCES, *(() if ours["num_classes"] else ("num_classes",))}
    changes = configuration.difference(
        {name: value for name, value in stored.items() if name not in free},
        {name: value for name, value in ours.items() if name not in free},
    )
    if changes:
        text = "; ".join(change.replace("config.", "config.model.", 1) for change in changes)
        rule = f"holds another network (stored -> asked for): {text}"
        raise UserError("config.model.checkpoint", str(folder), rule)
    return build(configuration.unflatten({**ours, "num_classes": stored["num_classes"]}))
