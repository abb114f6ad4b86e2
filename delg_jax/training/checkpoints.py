"""Orbax checkpoints of a run, and networks restored from them."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as preserved

from delg_jax import configuration
from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.models import variables as model_variables
from delg_jax.models.delg import SOURCES, Delg, build
from delg_jax.training import integrity
from delg_jax.training.optimizer import TrainState

FOLDER = "checkpoints"
_VARIABLES = ("params", "batch_stats")
_THRESHOLDS = ("attention_p50", "attention_p75")


class Checkpoints:
    """The checkpoints of one run, saved in the background; use it in a `with` block.

    Each holds variables, optimiser, where the input stands, and as `meta` the configuration. Random
    draws need nothing more: they derive from `config.seed` and the number of the step.

    Args:
      folder: of the run's checkpoints.
      model: the `config.model` tree with its number of classes, kept in every checkpoint.
      keep: how many of the latest to keep.
      best_metric: the checkpoint that is best by it is kept too; higher is better, except for
        names that end in `loss`; empty for none.
      config: the whole tree, kept in every checkpoint if given.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: ml_collections.ConfigDict,
        keep: int,
        best_metric: str = "",
        config: ml_collections.ConfigDict | None = None,
    ) -> None:
        policies, best = [preserved.LatestN(keep)], {}
        if best_metric:
            lower = best_metric.endswith("loss")
            best = {"best_fn": lambda metrics: metrics[best_metric]}
            best["best_mode"] = "min" if lower else "max"
            kept = {"n": 1, "reverse": lower, "keep_checkpoints_without_metrics": False}
            policies.append(preserved.BestN(get_metric_fn=best["best_fn"], **kept))
        policy = preserved.AnyPreservationPolicy(policies)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=True, **best)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        self._best_metric = best_metric
        self._meta = {"model": configuration.flatten(model)}
        if config is not None:
            self._meta["config"] = configuration.flatten(config)

    def __enter__(self) -> "Checkpoints":
        """Opens the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Number of updates at the latest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, input_state: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves a state, unless this step is saved already.

        Args:
          state: to be saved.
          input_state: where the input stands.
          metrics: of this step; the best metric and quartiles of the attention are kept.
        """
        step, metrics = int(state.step), metrics or {}
        if step in self._manager.all_steps():
            return
        # Orbax would compile a slice of every replicated array for every device
        state = jax.device_get(state)
        attention = {name: metrics[name] for name in _THRESHOLDS if name in metrics}
        best = {name: metrics[name] for name in (self._best_metric,) if name in metrics}
        meta = {**self._meta, "input": input_state, "attention": attention}
        meta |= integrity.seal(state.variables)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(state.variables),
                optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                meta=ocp.args.JsonSave(meta),
            ),
            metrics=best or None,
        )

    def restore(self, like: TrainState) -> tuple[TrainState, str]:
        """Restores the latest checkpoint into the structure of `like`, and the input's state.

        The arrays are NumPy's, so that they may go to any number of devices.

        Raises:
          UserError: if it is damaged, or of another optimiser or structure, as a version may be.
        """
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        optimizer = {"step": like.step, "state": like.opt_state}
        arguments = ocp.args.Composite(
            variables=ocp.args.StandardRestore(like.variables),
            optimizer=ocp.args.StandardRestore(optimizer),
            meta=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(self._manager.latest_step(), args=arguments)
        except (ValueError, KeyError, OSError) as error:
            folder = str(self._manager.directory)
            rule = f"cannot be gone on from ({str(error).splitlines()[0]}); delete it, or start "
            rule += f"from its weights with --config.model.checkpoint={folder} and a new --workdir"
            raise UserError("checkpoint", folder, rule) from error
        values, rest = restored["variables"], restored["optimizer"]
        integrity.require_whole(values, restored["meta"], pathlib.Path(self._manager.directory))
        state = TrainState(rest["step"], values["params"], values["batch_stats"], rest["state"])
        return state, restored["meta"]["input"]


def attention_thresholds(checkpoint: str | pathlib.Path) -> dict[str, float]:
    """Quantiles of the attention in the last step before a checkpoint, for tau (section 4.1).

    Args:
      checkpoint: a workdir, the folder of its checkpoints, or one of these.

    Returns:
      Scores `attention_p50` (median) and `attention_p75`.

    Raises:
      UserError: if there is no checkpoint, or it was not trained with a local head.
    """
    folder, step = _named(str(checkpoint))
    options = ocp.CheckpointManagerOptions(read_only=True)
    with (
        integrity.reading(folder),
        ocp.CheckpointManager(folder.resolve(), options=options) as manager,
    ):
        step = manager.latest_step() if step is None else step
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    if not meta.get("attention"):
        rule = "holds no quantiles of the attention"
        raise UserError("config.model.checkpoint", str(checkpoint), rule)
    return meta["attention"]


def load_model(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> tuple[Delg, Any]:
    """The network to extract with: trained, pretrained, or random, in this order.

    A checkpoint named by `config.model.checkpoint` (a workdir, the folder of its checkpoints, or
    one of these) wins over one in `workdir`, unless that run started from it; without either,
    `config.model.pretrained` fills the backbone.

    Args:
      config: the whole tree.
      workdir: whose `checkpoints/` are looked into.

    Returns:
      The network and its variables.

    Raises:
      UserError: if the checkpoint or the weights do not fit `config.model`.
    """
    found = find_checkpoint(config, workdir)
    if found is None:
        module = build(config.model)
        variables = model_variables.initialize(module, jax.random.key(config.seed))
        return module, model_variables.load_pretrained(variables, config.model)
    return _restore(config, *found)


def start_from_checkpoint(variables: Any, config: ml_collections.ConfigDict) -> Any:
    """Replaces fresh variables by those of `config.model.checkpoint`; unchanged if it is empty.

    Args:
      variables: of the network that will be trained, classifiers included.
      config: the whole tree, with the number of classes of the training data.

    Returns:
      Variables of the same structure. Classifiers stay fresh if the checkpoint's are for another
      number of classes.

    Raises:
      UserError: if there is no checkpoint, or it holds another network.
    """
    if not config.model.checkpoint:
        return variables
    config = config.copy_and_resolve_references()
    wanted, config.model.num_classes = config.model.num_classes, 0
    module, restored = _restore(config, *_named(config.model.checkpoint))
    if module.num_classes != wanted:
        fresh = {n: v for n, v in variables["params"].items() if n.endswith("_classifier")}
        restored = {**restored, "params": {**restored["params"], **fresh}}
    return restored


def _restore(
    config: ml_collections.ConfigDict, folder: pathlib.Path, step: int | None
) -> tuple[Delg, Any]:
    """The network of a checkpoint in `folder`, the latest if `step` is None, and its variables."""
    options = ocp.CheckpointManagerOptions(read_only=True)
    with (
        integrity.reading(folder),
        ocp.CheckpointManager(folder.resolve(), options=options) as manager,
    ):
        step = manager.latest_step() if step is None else step
        stored = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        module = _stored_module(config, stored["meta"]["model"], folder)
        target = jax.eval_shape(
            lambda key: module.init(key, jnp.zeros((1, 64, 64, 3)), method="classify"),
            jax.random.key(0),
        )
        target = {name: target.get(name, {}) for name in _VARIABLES}
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), target
        )
        restored = manager.restore(
            step, args=ocp.args.Composite(variables=ocp.args.StandardRestore(target))
        )
        integrity.require_whole(restored["variables"], stored["meta"], folder)
    return module, restored["variables"]


def find_checkpoint(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> tuple[pathlib.Path, int | None] | None:
    """Folder and step (None for the latest) of what to extract with, or None."""
    named, own = config.model.checkpoint, workdir / FOLDER
    if named and not (_has_checkpoint(own) and _started_from(own, named)):
        return _named(named)
    return (own, None) if _has_checkpoint(own) else None


def _named(checkpoint: str) -> tuple[pathlib.Path, int | None]:
    path = pathlib.Path(checkpoint)
    if path.name.isdigit() and path.is_dir() and not _has_checkpoint(path / FOLDER):
        return path.parent, int(path.name)
    for folder in (path, path / FOLDER):
        if _has_checkpoint(folder):
            return folder, None
    rule = "must be the workdir of a training run with a checkpoint"
    raise UserError("config.model.checkpoint", checkpoint, rule)


def _has_checkpoint(folder: pathlib.Path) -> bool:
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def _started_from(folder: pathlib.Path, checkpoint: str) -> bool:
    """Whether the run in `folder` started from `checkpoint`, and so is what follows on it."""
    if not (folder / artefacts.CONFIG_FILE).is_file():
        return False
    return artefacts.stored_config(folder).get("model.checkpoint") == checkpoint


def _stored_module(
    config: ml_collections.ConfigDict, stored: dict[str, Any], folder: pathlib.Path
) -> Delg:
    """The network that the checkpoint was trained as; refused if `config.model` is another."""
    ours = configuration.flatten(config.model)
    free = {*SOURCES, *(() if ours["num_classes"] else ("num_classes",))}
    changes = configuration.difference(
        {name: value for name, value in stored.items() if name not in free},
        {name: value for name, value in ours.items() if name not in free},
    )
    if changes:
        text = "; ".join(change.replace("config.", "config.model.", 1) for change in changes)
        rule = f"holds another network (stored -> asked for): {text}"
        raise UserError("config.model.checkpoint", str(folder), rule)
    with config.model.copy_and_resolve_references().unlocked() as model:
        model.num_classes = stored["num_classes"]
    return build(model)
