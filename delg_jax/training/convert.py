"""Converts published weights into a checkpoint of step 0, which training and extraction read."""

import pathlib

import jax
import ml_collections

from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.models.variables import Pretrained, digest, initialize, load_pretrained
from delg_jax.training.checkpoints import FOLDER, Checkpoints
from delg_jax.training.optimizer import OptimizerSettings, create_optimizer, create_state
from delg_jax.workdir import Output, root_of

_SECTIONS = ("seed", "model")


def convert_weights(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> pathlib.Path:
    """Writes the network with the weights of `config.model.pretrained` as a checkpoint of step 0.

    Classifiers are initialised from `config.seed`; weights that lack another part are refused.

    Args:
      config: the whole tree.
      workdir: gets `checkpoints/`.
      overwrite: whether to delete checkpoints of another configuration instead of refusing them.

    Returns:
      The folder of the checkpoint, a value for `config.model.checkpoint`.

    Raises:
      UserError: if no weights are given, they do not fit, or the folder holds other weights.
    """
    if not config.model.pretrained:
        raise UserError("config.model.pretrained", "", "must name the weights to convert")
    folder = root_of(workdir) / FOLDER
    module, pretrained = build(config.model), Pretrained.of(config.model)
    variables = initialize(module, jax.random.key(config.seed))
    classifiers = config.model.num_classes > 0
    variables = load_pretrained(module, variables, pretrained, classifiers, complete=True)
    Output.of(folder, config, _SECTIONS).claim(overwrite)
    with Checkpoints(folder, config.model, keep=1) as checkpoints:
        tx = create_optimizer(OptimizerSettings.of(config.train))
        state = create_state(variables, tx)
        if checkpoints.latest() is not None:
            stored = checkpoints.restore(state).state
            if digest(stored.variables) != digest(variables):
                rule = "holds other weights under this configuration; use another --workdir"
                raise UserError("workdir", str(workdir), rule)
        checkpoints.save(state)
    return folder
