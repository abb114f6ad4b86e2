"""The conversion stage: foreign weights as a checkpoint of ours, before any step of training."""

import pathlib

import jax
import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.models.variables import digest, initialize, load_pretrained
from delg_jax.training import optimizer as train_state
from delg_jax.training.checkpoints import FOLDER, Checkpoints

_SECTIONS = ("seed", "model")


def convert_weights(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> pathlib.Path:
    """Writes the network that `config.model.pretrained` fills as the checkpoint of step 0.

    What the file does not hold is drawn from `config.seed`, exactly as when it is read directly.

    Args:
      config: the whole tree.
      workdir: gets `checkpoints/`.
      overwrite: whether checkpoints of another configuration are deleted instead of refused.

    Returns:
      The folder of the checkpoints, which `config.model.checkpoint` may name.

    Raises:
      UserError: if no weights are named, they do not fit, or the folder holds others.
    """
    if not config.model.pretrained:
        raise UserError("config.model.pretrained", "", "must name the file of weights to convert")
    folder = pathlib.Path(workdir) / FOLDER
    variables = initialize(build(config.model), jax.random.key(config.seed))
    variables = load_pretrained(variables, config.model, config.model.num_classes > 0)
    artefacts.claim(folder, config, _SECTIONS, overwrite)
    with Checkpoints(folder, config.model, keep=1) as checkpoints:
        state = train_state.create(variables, train_state.optimizer(config.train))
        if checkpoints.latest() is not None:
            held, _ = checkpoints.restore(state)
            if digest(held.variables) != digest(variables):
                rule = "holds other weights under this configuration; take another --workdir"
                raise UserError("workdir", str(workdir), rule)
        checkpoints.save(state, input_state="")
    return folder
