"""The settings of re-rankings, from the `config.rerank` tree."""

import ml_collections

from delg_jax.errors import UserError, fields_of
from delg_jax.rerank import MdsSettings, SpatialSettings
from delg_jax.rerank.diffusion import DiffusionSettings

# Fields that no class of settings checks, and the least value of each
_LEAST = {
    "superglobal": {"short_list": 1, "neighbours": 1, "beta": 0},
    "qe": {"images": 1, "alpha": 0},
}


def check(rerank: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a wrong value in `config.rerank`."""
    spatial_settings(rerank)
    mds_settings(rerank)
    diffusion_settings(rerank)
    for section, fields in _LEAST.items():
        for name, least in fields.items():
            value = rerank[section][name]
            if value < least:
                rule = f"must be at least {least}"
                raise UserError(f"config.rerank.{section}.{name}", value, rule)


def spatial_settings(rerank: ml_collections.ConfigDict) -> SpatialSettings:
    """`config.rerank.sp` without its short list; raises a UserError for a wrong value."""
    if rerank.sp.short_list < 1:
        raise UserError("config.rerank.sp.short_list", rerank.sp.short_list, "must be at least 1")
    fields = {name: value for name, value in rerank.sp.items() if name != "short_list"}
    with fields_of("config.rerank.sp", fields):
        return SpatialSettings(**fields)


def mds_settings(rerank: ml_collections.ConfigDict) -> MdsSettings:
    """`config.rerank.mds`; raises a UserError for a wrong value."""
    with fields_of("config.rerank.mds", rerank.mds):
        return MdsSettings(**rerank.mds)


def diffusion_settings(rerank: ml_collections.ConfigDict) -> DiffusionSettings:
    """`config.rerank.diffusion`; raises a UserError for a wrong value."""
    with fields_of("config.rerank.diffusion", rerank.diffusion):
        return DiffusionSettings(**rerank.diffusion)
