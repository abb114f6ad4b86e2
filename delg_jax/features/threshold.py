"""Tau from the attention that training saw (section 4.1)."""

import pathlib

import ml_collections

from delg_jax.errors import UserError
from delg_jax.training import checkpoints

_QUANTILES = {0.5: "attention_p50", 0.75: "attention_p75"}


def attention_threshold(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> float:
    """The attention below which no feature is extracted.

    Args:
      config: the whole tree.
      workdir: whose checkpoints are looked into, as `checkpoints.load_model` does.

    Returns:
      `config.extract.attention_threshold`, or the quantile of the network's training that
      `config.extract.attention_quantile` asks for.

    Raises:
      UserError: if both are set, there is no such quantile, or the network comes from no
        checkpoint that knows its own.
    """
    settings = config.extract
    quantile = settings.attention_quantile
    if not quantile:
        return float(settings.attention_threshold)
    if quantile not in _QUANTILES:
        rule = "must be 0, 0.5 or 0.75"
        raise UserError("config.extract.attention_quantile", quantile, rule)
    if settings.attention_threshold:
        rule = "must be 0 if config.extract.attention_threshold is set"
        raise UserError("config.extract.attention_quantile", quantile, rule)
    found = checkpoints.find_checkpoint(config, pathlib.Path(workdir))
    if found is None:
        rule = "needs a network from a checkpoint, which knows the attention of its training"
        raise UserError("config.extract.attention_quantile", quantile, rule)
    folder, step = found
    chosen = folder if step is None else folder / str(step)
    return checkpoints.attention_thresholds(chosen)[_QUANTILES[quantile]]
