"""A trained network as extraction runs it: what can be changed without training it again."""

import jax.numpy as jnp
import ml_collections

from delg_jax.errors import UserError, require_choice
from delg_jax.models.delg import Delg

SCALE_POOLINGS = ("mean", "max")


def check(settings: ml_collections.ConfigDict) -> None:
    """Raises a UserError for fields of `config.extract` that no network can be adapted by."""
    require_choice("config.extract.dtype", settings.dtype, ("float32", "bfloat16"))
    require_choice("config.extract.scale_pooling", settings.scale_pooling, SCALE_POOLINGS)
    for field in ("gem_power", "relup"):
        if not settings[field] >= 0:
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    if not 0 <= settings.regional <= 1:
        raise UserError("config.extract.regional", settings.regional, "must lie in [0, 1]")


def adapted(module: Delg, settings: ml_collections.ConfigDict) -> Delg:
    """The network with the precision and the test-time pooling of `config.extract`.

    Args:
      module: as it was trained; the variables stay the same.
      settings: the `config.extract` tree.

    Returns:
      The network to extract with (SuperGlobal, Shao et al., ICCV 2023).
    """
    fields = {
        "dtype": jnp.dtype(settings.dtype),
        "relup": float(settings.relup),
        "regional": float(settings.regional),
    }
    if settings.gem_power:
        fields |= {"gem_power": float(settings.gem_power), "gem_learned": False}
    return module.clone(**fields)
