"""Orbax checkpoints of a run, and networks restored from them."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp

from delg_jax import configuration
from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.models import variables as model_variables
from delg_jax.models.delg import SOURCES, Delg, build
from delg_jax.training.state import TrainState

FOLDER = "checkpoints"
_VARIABLES = ("params", "batch_stats")


class Checkpoints:
    """The checkpoints of one run, saved in the background; use it in a `with` block.

    Args:
      folder: of the run's checkpoints.
      model: the `config.model` tree with its number of classes, kept in every checkpoint.
      keep: how many of the latest to keep.
    """

    def __init__(self, folder: pathlib.Path, model: ml_collections.ConfigDict, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        self._model = configuration.flatten(model)

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

    def save(self, state: TrainState, input_state: str) -> None:
        """Saves the state, and where the input stands, unless this step is saved already."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        # Orbax would compile a slice of every replicated array for every device
        state = jax.device_get(state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(state.variables),
                optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                meta=ocp.args.JsonSave({"model": self._model, "input": input_state}),
            ),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, str]:
        """Restores the latest checkpoint into the structure of `like`, and the input's state."""
        optimizer = {"step": like.step, "state": like.opt_state}
        restored = self._manager.restore(
            self._manager.latest_step(),
            args=ocp.args.Composite(
                variables=ocp.args.StandardRestore(like.variables),
                optimizer=ocp.args.StandardRestore(optimizer),
                meta=ocp.args.JsonRestore(),
            ),
        )
        values, rest = restored["variables"], restored["optimizer"]
        state = TrainState(rest["step"], values["params"], values["batch_stats"], rest["state"])
        return state, restored["meta"]["input"]


def load_model(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> tuple[Delg, Any]:
    """The network to extract with: trained, pretrained, or random, in this order.

    A checkpoint named by `config.model.checkpoint` (a workdir, or its checkpoints) wins over one
    in `workdir`, unless that run started from it; without either, `config.model.pretrained` fills
    the backbone.

    Args:
      config: the whole tree.
      workdir: whose `checkpoints/` are looked into.

    Returns:
      The network and its variables.

    Raises:
      UserError: if the checkpoint or the weights do not fit `config.model`.
    """
    folder = _checkpoint_folder(config, workdir)
    if folder is None:
        module = build(config.model)
        variables = model_variables.initialize(module, jax.random.key(config.seed))
        return module, model_variables.load_pretrained(variables, config.model)
    return _restore(config, folder)


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
    module, restored = _restore(config, _named_folder(config.model.checkpoint))
    if module.num_classes != wanted:
        fresh = {n: v for n, v in variables["params"].items() if n.endswith("_classifier")}
        restored = {**restored, "params": {**restored["params"], **fresh}}
    return restored


def _restore(config: ml_collections.ConfigDict, folder: pathlib.Path) -> tuple[Delg, Any]:
    """The network of the latest checkpoint in `folder`, and its variables."""
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
        step = manager.latest_step()
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
        try:
            restored = manager.restore(
                step, args=ocp.args.Composite(variables=ocp.args.StandardRestore(target))
            )
        except (ValueError, KeyError, FileNotFoundError) as error:
            rule = f"does not hold this network: {str(error).splitlines()[0]}"
            raise UserError("config.model.checkpoint", str(folder), rule) from error
    return module, restored["variables"]


def _checkpoint_folder(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> pathlib.Path | None:
    named, own = config.model.checkpoint, workdir / FOLDER
    if named and not (_has_checkpoint(own) and _started_from(own, named)):
        return _named_folder(named)
    return own if _has_checkpoint(own) else None


def _named_folder(checkpoint: str) -> pathlib.Path:
    for folder in (pathlib.Path(checkpoint), pathlib.Path(checkpoint) / FOLDER):
        if _has_checkpoint(folder):
            return folder
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
