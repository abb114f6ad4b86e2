"""Orbax checkpoints of a run, and networks restored from them."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp

from delg_jax import configuration
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
    in `workdir`; without either, `config.model.pretrained` fills the backbone.

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
    named = pathlib.Path(config.model.checkpoint) if config.model.checkpoint else None
    for root in filter(None, (named, named and named / FOLDER, not named and workdir / FOLDER)):
        if root.is_dir() and any(path.name.isdigit() for path in root.iterdir()):
            return root
    if named:
        rule = "must be the workdir of a training run with a checkpoint"
        raise UserError("config.model.checkpoint", config.model.checkpoint, rule)
    return None


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
