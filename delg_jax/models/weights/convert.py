"""Foreign weights, given as arrays by name, become Flax variables."""

import dataclasses
import re
from collections.abc import Mapping

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from delg_jax.errors import UserError, require_choice
from delg_jax.models.convention import get_convention
from delg_jax.models.delg import build
from delg_jax.models.weights import layout, mismatch, patterns
from delg_jax.models.weights.names import NAMINGS
from delg_jax.models.weights.naming import Naming


def convert(
    source: str,
    arrays: Mapping[str, np.ndarray],
    model_config: ml_collections.ConfigDict,
    mapping: Mapping[str, str | float] | None = None,
) -> dict[str, dict]:
    """Turns arrays under a source's names into variables of our network.

    BatchNorm whose running statistics are all absent counts as folded into its scale and bias. A
    head of which the source holds nothing is left out, and so are the classifiers if
    `model_config.num_classes` is 0.

    Args:
      source: a key of `names.NAMINGS`.
      arrays: the source's arrays by name.
      model_config: `config.model`, the network to fill.
      mapping: our variable, as `whiten/kernel`, to the source's, or to a number that fills it;
        goes before what the tables say.

    Returns:
      {"params": tree, "batch_stats": tree} of float32 arrays, of the parts that the source has.

    Raises:
      UserError: for weights of another network, or listing every missing, surplus and misshapen
        array, or naming one that is not finite.
    """
    require_choice("config.model.pretrained_source", source, tuple(NAMINGS))
    plan = _plan(source, arrays, model_config, mapping or {})
    found = {path: plan.value(path) for path in plan.names}
    mismatch.explain(
        source,
        arrays,
        model_config,
        missing=[plan.names[path] or path for path, value in found.items() if value is None],
        surplus=plan.surplus(),
        misshapen={
            path: (str(plan.names[path]), value.shape, plan.shapes[path])
            for path, value in found.items()
            if value is not None and value.shape != plan.shapes[path]
        },
    )
    for path, value in found.items():
        if not np.isfinite(value).all():
            rule = f"must be finite numbers, for {path}"
            raise UserError("config.model.pretrained", plan.names[path], rule)
    _check_power(plan)
    trees: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for path, value in found.items():
        trees[plan.collections[path]][path] = value
    return {name: traverse_util.unflatten_dict(tree, sep="/") for name, tree in trees.items()}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which of the source's arrays goes where; paths are ours, as `resnet/stem_conv/kernel`."""

    naming: Naming
    arrays: Mapping[str, np.ndarray]
    model: ml_collections.ConfigDict
    modules: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    collections: Mapping[str, str]
    names: Mapping[str, str | float | None]

    def value(self, path: str) -> np.ndarray | None:
        """The array for our variable, in our layout; None if the source has none."""
        name, shape = self.names[path], self.shapes[path]
        if isinstance(name, int | float):
            return np.full(shape, name, np.float32)
        if name in self.arrays:
            return layout.to_flax(self.arrays[name], path, shape, self.naming)
        if self.collections[path] == "batch_stats" and self._is_folded():
            # With these BatchNorm only scales and shifts: (x - 0) / sqrt(1).
            epsilon = get_convention(self.model.convention).epsilon
            return np.full(shape, 0.0 if path.endswith("/mean") else 1.0 - epsilon, np.float32)
        return None

    def surplus(self) -> list[str]:
        """Arrays that found no place, though they do not belong to a part we are without."""
        used = set(self.names.values())
        return sorted(name for name in self.arrays if name not in used and not self._passed(name))

    def _passed(self, name: str) -> bool:
        naming = self.naming
        if any(name.startswith(mark) or name.endswith(mark) for mark in naming.ignored):
            return True
        owner = name.rpartition(naming.separator)[0]
        heads = {theirs for ours, theirs in self.modules.items() if not ours.startswith("resnet/")}
        absent = [p for ours, p in naming.patterns.items() if not _has(self.shapes, ours)]
        return (
            owner in heads
            or name in naming.single.values()
            or any(re.search(pattern, owner, re.IGNORECASE) for pattern in absent)
        )

    def _is_folded(self) -> bool:
        endings = tuple(self.naming.separator + self.naming.norm[leaf] for leaf in ("mean", "var"))
        return not any(name.endswith(endings) for name in self.arrays)


def _plan(
    source: str,
    arrays: Mapping[str, np.ndarray],
    model: ml_collections.ConfigDict,
    mapping: Mapping[str, str | float],
) -> _Plan:
    naming = mismatch.dialect(source, arrays, model.backbone)
    arrays = {**arrays, **_fused(naming, arrays, model)}
    modules = naming.modules(model.backbone)
    expected = _expected(model)
    shapes = {path: shape for path, (_, shape) in expected.items()}
    names: dict[str, str | float | None] = {p: naming.name(p, modules) for p in shapes}
    if naming.patterns:
        names |= patterns.find(naming, modules, shapes, arrays)
    names |= _checked(mapping, shapes, arrays)
    wanted = {_part(module) for module in naming.patterns}
    present = {_part(p) for p, name in names.items() if p in mapping or name in arrays}
    kept = {"resnet"} | wanted | present
    names = {
        path: name
        for path, name in names.items()
        if _part(path) in kept and (name is not None or _part(path) in wanted)
    }
    collections = {path: collection for path, (collection, _) in expected.items()}
    return _Plan(naming, arrays, model, modules, shapes, collections, names)


def _expected(model: ml_collections.ConfigDict) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Collection and shape of our variables by path, without computing any."""
    module = build(model)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, method="classify"), image
    )
    return {
        "/".join(path): (collection, leaf.shape)
        for (collection, *path), leaf in traverse_util.flatten_dict(variables).items()
        if model.num_classes or not path[0].endswith("_classifier")
    }


def _checked(
    mapping: Mapping[str, str | float],
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> Mapping[str, str | float]:
    """The mapping, if both of its sides exist."""
    subject = "config.model.pretrained_mapping"
    for ours, theirs in mapping.items():
        if ours not in shapes:
            raise UserError(subject, ours, "must name a variable of config.model")
        if isinstance(theirs, str) and theirs not in arrays:
            raise UserError(subject, theirs, "must name a variable of config.model.pretrained")
    return mapping


def _fused(
    naming: Naming, arrays: Mapping[str, np.ndarray], model: ml_collections.ConfigDict
) -> dict[str, np.ndarray]:
    """The arrays of convolutions that take the BatchNorm after them in."""
    if model.dim_reduction != "fc":
        return {}
    epsilon = get_convention(naming.convention).epsilon
    made = {}
    for target, (convolution, norm) in naming.fused.items():
        kernel, bias = (
            f"{naming.separator}{naming.convolution[leaf]}" for leaf in ("kernel", "bias")
        )
        sources = {leaf: f"{norm}{naming.separator}{name}" for leaf, name in naming.norm.items()}
        needed = [convolution + kernel, convolution + bias, *sources.values()]
        if all(name in arrays for name in needed):
            statistics = {leaf: arrays[name] for leaf, name in sources.items()}
            made[target + kernel], made[target + bias] = layout.fuse(
                arrays[needed[0]], arrays[needed[1]], statistics, epsilon
            )
    return made


def _check_power(plan: _Plan) -> None:
    """Refuses to pool with another power than that which the weights were trained with."""
    power = plan.arrays.get(plan.naming.single.get("power", ""))
    if power is None or plan.model.gem_learned or plan.model.pooling != "gem":
        return
    if abs(float(np.ravel(power)[0]) - plan.model.gem_power) > 1e-6:
        rule = f"must be {float(np.ravel(power)[0])!r}, the power of these weights, unless "
        rule += "config.model.gem_learned is True"
        raise UserError("config.model.gem_power", plan.model.gem_power, rule)


def _part(path: str) -> str:
    """The part of the network that a module or variable belongs to, as `attend`."""
    return path.partition("/")[0]


def _has(shapes: Mapping[str, tuple[int, ...]], module: str) -> bool:
    return any(path.startswith(f"{module}/") for path in shapes)
