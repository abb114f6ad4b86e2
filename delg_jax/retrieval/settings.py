"""Settings of the re-rankings, and checks for fields that contradict each other.

A short list longer than the database is allowed, as one configuration serves small and large ones.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Self, get_type_hints

import ml_collections

from delg_jax.errors import UserError, fields_of
from delg_jax.features.network import local_dimension
from delg_jax.rerank import MdsSettings, SpatialSettings
from delg_jax.rerank.diffusion import DiffusionSettings
from delg_jax.rerank.query_expansion import ExpansionSettings
from delg_jax.rerank.superglobal import SuperGlobalSettings

# Fields that bound the short list of each step
_SHORT_LISTS = {
    "sp": ("rerank.sp.short_list",),
    "superglobal": ("rerank.superglobal.short_list",),
    "qe": ("rerank.qe.images",),
    "mds": ("rerank.mds.short_list", "rerank.mds.background_rank"),
}
_LISTED = ("search.candidates", "search.estimated")  # ranked by a search through candidates


@dataclasses.dataclass(frozen=True)
class RerankSettings:
    """The settings of all re-rankings; `config.rerank` has the same names."""

    sp: SpatialSettings
    superglobal: SuperGlobalSettings
    qe: ExpansionSettings
    mds: MdsSettings
    diffusion: DiffusionSettings

    @classmethod
    def of(cls, rerank: ml_collections.ConfigDict) -> Self:
        """The settings of `config.rerank`; raises a UserError for a wrong value."""
        sections = {}
        for name, kind in get_type_hints(cls).items():
            with fields_of(f"config.rerank.{name}", rerank[name]):
                sections[name] = kind(**rerank[name])
        return cls(**sections)


def refuse_contradictions(method: str, config: ml_collections.ConfigDict) -> None:
    """Compares the fields that a method depends on.

    Args:
      method: one of `methods.METHODS`.
      config: the whole tree.

    Raises:
      UserError: for the first field that exceeds another.
    """
    steps = method.split("+")
    check_depth([method], config)
    kept = "the images kept per query"
    for step in steps if config.eval.depth else ():
        for field in _SHORT_LISTS.get(step, ()):
            _at_most(config, field, kept, "eval.depth")
    if steps[0] == "local" and config.search.candidates:
        for field in (field for step in steps for field in _SHORT_LISTS.get(step, ())):
            _at_most(config, field, "the images ranked per query", *_LISTED)
        if "mds" in steps and config.rerank.mds.graph == "stored":
            listed = "the images compared with each image of the graph"
            _at_most(config, "search.graph_neighbours", listed, "search.candidates")
    if "superglobal" in steps:
        others = "the short list also holds the image itself"
        _below(config, "rerank.superglobal.neighbours", "rerank.superglobal.short_list", others)
    if "diffusion" in steps:
        others = "the graph also keeps the image itself"
        _below(config, "rerank.diffusion.neighbours", "search.graph_neighbours", others)
    if "mds" in steps:
        _check_embedding(config)
    if steps[0] == "local" and config.search.engine == "cann":
        _check_axes(config)


def check_depth(methods: Sequence[str], config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a depth that is negative, or that one of the methods cannot use."""
    depth = config.eval.depth
    if depth < 0:
        raise UserError("config.eval.depth", depth, "must not be negative")
    whole = [method for method in methods if "diffusion" in method]
    if depth and whole:
        rule = f"must be 0 for {whole[0]}, which re-ranks the whole database"
        raise UserError("config.eval.depth", depth, rule)
    candidates = config.search.candidates
    if candidates and "local+diffusion" in whole:
        rule = "must be 0 for local+diffusion, which re-ranks the whole database"
        raise UserError("config.search.candidates", candidates, rule)


def ranked_depth(config: ml_collections.ConfigDict, counted: int = 0) -> int:
    """The images of a query that rankings keep.

    Args:
      config: the whole tree.
      counted: images per query that count for the task; 0 for all.

    Returns:
      `config.eval.depth`, or what its metrics and methods read if that is 0 and not all images
      count; 0 for all.
    """
    steps = {step for method in config.eval.methods for step in method.split("+")}
    if config.eval.depth or not counted or "diffusion" in steps:
        return config.eval.depth
    fields = [field for step in steps for field in _SHORT_LISTS.get(step, ())]
    lists = [_value(config, field) for field in fields]
    return max(counted, *config.eval.kappas, *lists)


def check_ranks(config: ml_collections.ConfigDict, counted: int = 0) -> None:
    """Checks that rankings are kept as deep as the metrics read them.

    Args:
      config: the whole tree.
      counted: images per query that count for the task; 0 for all.

    Raises:
      UserError: for a metric that reads beyond `config.eval.depth` or, of local search, beyond
        `config.search.candidates` and `config.search.estimated`.
    """
    kappas = tuple(config.eval.kappas)
    searches = {method.partition("+")[0] for method in config.eval.methods}
    limits = [("config.eval.depth", config.eval.depth)]
    if "local" in searches:
        limit = _value(config, *_LISTED) if config.search.candidates else 0
        limits.append((_named(*_LISTED), limit))
    for field, depth in limits:
        if depth and max(kappas, default=0) > depth:
            rule = f"must be at most {field} (={depth}), the images ranked per query"
            raise UserError("config.eval.kappas", kappas, rule)
        if depth and depth < counted:
            rule = f"must be 0 or at least {counted}, the images that count for {config.data.name}"
            raise UserError(field, depth, rule)


def _check_axes(config: ml_collections.ConfigDict) -> None:
    field, dimension = local_dimension(config)
    axes = config.search.cann.axes
    if dimension and axes > dimension:
        rule = f"must be at most {field} (={dimension}), the axes of a descriptor; 0 = all"
        raise UserError("config.search.cann.axes", axes, rule)


def _check_embedding(config: ml_collections.ConfigDict) -> None:
    mds = "rerank.mds"
    if config.rerank.mds.graph == "stored":
        kept = "the similarities kept per image"
        _at_most(config, f"{mds}.background_rank", kept, "search.graph_neighbours")
    elif config.rerank.mds.background_rank and not config.search.idf_images:
        rule = "must be positive: without a stored graph, background levels are estimated on them"
        raise UserError("config.search.idf_images", 0, rule)
    others = "the short list also holds the image itself"
    _below(config, f"{mds}.neighbours", f"{mds}.short_list", others)
    if config.rerank.mds.method == "landmark":
        _at_most(config, f"{mds}.landmarks", "the images to choose from", f"{mds}.short_list")


def _at_most(config: ml_collections.ConfigDict, field: str, what: str, *bounds: str) -> None:
    """Raises a UserError if a field exceeds the sum of others, which are `what`."""
    limit = _value(config, *bounds)
    if _value(config, field) > limit:
        rule = f"must be at most {_named(*bounds)} (={limit}), {what}"
        raise UserError(f"config.{field}", _value(config, field), rule)


def _below(config: ml_collections.ConfigDict, field: str, bound: str, why: str) -> None:
    if _value(config, field) >= _value(config, bound):
        rule = f"must be below config.{bound} (={_value(config, bound)}): {why}"
        raise UserError(f"config.{field}", _value(config, field), rule)


def _named(*fields: str) -> str:
    return " + ".join(f"config.{field}" for field in fields)


def _value(config: ml_collections.ConfigDict, *fields: str) -> int:
    """The sum of some fields."""
    paths = [field.split(".") for field in fields]
    return sum(functools.reduce(lambda tree, name: tree[name], path, config) for path in paths)
