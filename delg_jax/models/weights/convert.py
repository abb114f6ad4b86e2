"""Foreign weights, given as arrays by name, become Flax variables."""

from collections.abc import Mapping

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from delg_jax.errors import UserError, require_choice
from delg_jax.models.convention import get_convention
from delg_jax.models.delg import build
from delg_jax.models.weights.names import NAMINGS, Naming

_MOST_LISTED = 8


def convert(
    source: str, arrays: Mapping[str, np.ndarray], model_config: ml_collections.ConfigDict
) -> dict[str, dict]:
    """Turns arrays under a source's names into variables of our network.

    BatchNorm whose running statistics are all absent counts as folded into its scale and bias. A
    head of which the source holds nothing is left out.

    Args:
      source: a key of `names.NAMINGS`.
      arrays: the source's arrays by name.
      model_config: `config.model`, the network to fill.

    Returns:
      {"params": tree, "batch_stats": tree} of float32 arrays, of the parts that the source has.

    Raises:
      UserError: listing every missing, surplus and misshapen array.
    """
    require_choice("config.model.pretrained_source", source, tuple(NAMINGS))
    naming = NAMINGS[source]
    modules = naming.modules(model_config.backbone)
    expected = _expected(model_config)
    folded = not any(name.endswith(tuple(_leaves(naming, "mean", "var"))) for name in arrays)
    statistics = _folded_statistics(model_config)
    absent = _absent_heads(arrays, naming, modules)
    found, missing, misshapen, used = {}, [], [], set()
    for path, shape in expected.items():
        collection, *module, leaf = path
        theirs = modules.get("/".join(module))
        if theirs is None or module[0] in absent:
            continue
        is_norm = "norm" in module[-1]
        table = naming.norm if is_norm else naming.convolution
        name = f"{theirs}{naming.separator}{table[leaf]}"
        used.add(name)
        if name not in arrays:
            if collection == "batch_stats" and folded:
                found[path] = np.full(shape, statistics[leaf], np.float32)
            else:
                missing.append(name)
            continue
        array = _to_flax(np.asarray(arrays[name], np.float32), naming.output_first)
        if array.shape != shape:
            misshapen.append(f"{name} {array.shape} instead of {shape}")
        found[path] = array
    surplus = sorted(
        name for name in arrays if name not in used and not _ignorable(name, naming, modules)
    )
    _raise_unless_whole(source, missing, surplus, misshapen)
    tree = traverse_util.unflatten_dict(found)
    return {"params": tree.get("params", {}), "batch_stats": tree.get("batch_stats", {})}


def _expected(model_config: ml_collections.ConfigDict) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of our variables by path, without computing any."""
    module = build(model_config)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, method="classify"), image
    )
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables).items()}


def _folded_statistics(model_config: ml_collections.ConfigDict) -> dict[str, float]:
    """Running statistics with which BatchNorm only scales and shifts: (x - 0) / sqrt(1)."""
    return {"mean": 0.0, "var": 1.0 - get_convention(model_config.convention).epsilon}


def _absent_heads(
    arrays: Mapping[str, np.ndarray], naming: Naming, modules: dict[str, str]
) -> set[str]:
    """Our parts, other than the backbone, of which the source holds no array."""
    owners = {name.rpartition(naming.separator)[0] for name in arrays}
    present = {ours.split("/")[0] for ours, theirs in modules.items() if theirs in owners}
    return {ours.split("/")[0] for ours in modules} - present - {"resnet"}


def _to_flax(array: np.ndarray, output_first: bool) -> np.ndarray:
    if output_first and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
    if output_first and array.ndim == 2:
        return array.T
    return array


def _leaves(naming: Naming, *leaves: str) -> list[str]:
    return [naming.separator + naming.norm[leaf] for leaf in leaves]


def _ignorable(name: str, naming: Naming, modules: dict[str, str]) -> bool:
    """Whether a variable belongs to a part that this model was configured without."""
    if any(name.startswith(mark) or name.endswith(mark) for mark in naming.ignored):
        return True
    owner = name.rpartition(naming.separator)[0]
    optional = {theirs for ours, theirs in modules.items() if not ours.startswith("resnet/")}
    return owner in optional


def _raise_unless_whole(
    source: str, missing: list[str], surplus: list[str], misshapen: list[str]
) -> None:
    problems = []
    for label, names in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen)):
        if names:
            more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
            problems.append(f"{len(names)} {label} ({', '.join(names[:_MOST_LISTED])}{more})")
    if problems:
        rule = f"config.model.pretrained must fit these names: {'; '.join(problems)}"
        raise UserError("config.model.pretrained_source", source, rule)
