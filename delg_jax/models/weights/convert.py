"""Converts published weights, given as arrays by name, to Flax variables."""

import dataclasses
import re
from collections.abc import Mapping

import jax
import numpy as np
from flax import traverse_util

from delg_jax.errors import UserError, require_choice
from delg_jax.models import delg
from delg_jax.models.convention import get_convention
from delg_jax.models.delg import BACKBONES, Delg
from delg_jax.models.weights.identify import architecture_of, best_naming
from delg_jax.models.weights.names import NAMINGS, Naming, is_norm

_STEM = "resnet/stem_conv/kernel"
_CONVOLUTION = {"kernel": ("weights", "kernel"), "bias": ("biases", "bias")}
_NORM = {
    "scale": ("gamma",),
    "bias": ("beta",),
    "mean": ("moving_mean",),
    "var": ("moving_variance", "moving_var"),
}


def convert(
    source: str,
    arrays: Mapping[str, np.ndarray],
    module: Delg,
    mapping: Mapping[str, str | float] | None = None,
    classifiers: bool = True,
) -> dict[str, dict]:
    """Converts the arrays of a source to variables of our network.

    If all running statistics are missing, BatchNorm is taken as folded into its scale and bias.
    Heads that the source lacks are left out.

    Args:
      source: a key of `names.NAMINGS`.
      arrays: the source's arrays by name.
      module: the network to fill.
      mapping: our variable, such as `whiten/kernel`, to the source's or to a number that fills it;
        takes precedence over the tables.
      classifiers: whether to convert them too.

    Returns:
      {"params": tree, "batch_stats": tree} of float32 arrays, for the parts that the source has.

    Raises:
      UserError: if the weights are of another network, or not finite.
    """
    require_choice("config.model.pretrained_source", source, tuple(NAMINGS))
    plan = _plan(source, arrays, module, mapping or {}, classifiers)
    found = {path: plan.value(path) for path in plan.names}
    _explain(
        source,
        arrays,
        module,
        missing=[str(plan.names[path] or path) for path, value in found.items() if value is None],
        surplus=plan.surplus(),
        misshapen={
            path: (str(plan.names[path]), value.shape, plan.shapes[path])
            for path, value in found.items()
            if value is not None and value.shape != plan.shapes[path]
        },
    )
    for path, value in found.items():
        if value is not None and not np.isfinite(value).all():
            rule = f"must be finite numbers, for {path}"
            raise UserError("config.model.pretrained", plan.names[path], rule)
    _check_power(plan)
    trees: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for path, value in found.items():
        trees[plan.collections[path]][path] = value
    return {name: traverse_util.unflatten_dict(tree, sep="/") for name, tree in trees.items()}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Assigns the source's arrays to our variables, by paths such as `resnet/stem_conv/kernel`."""

    naming: Naming
    arrays: Mapping[str, np.ndarray]
    network: Delg
    modules: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    collections: Mapping[str, str]
    names: Mapping[str, str | float | None]

    def value(self, path: str) -> np.ndarray | None:
        """The array for our variable, in our layout; None if the source lacks it."""
        name, shape = self.names[path], self.shapes[path]
        if isinstance(name, int | float):
            return np.full(shape, name, np.float32)
        if name is not None and name in self.arrays:
            return _to_flax(self.arrays[name], path, shape, self.naming)
        if self.collections[path] == "batch_stats" and self._is_folded():
            # With these statistics BatchNorm only scales and shifts: (x - 0) / sqrt(1)
            epsilon = get_convention(self.network.convention).epsilon
            return np.full(shape, 0.0 if path.endswith("/mean") else 1.0 - epsilon, np.float32)
        return None

    def surplus(self) -> list[str]:
        """Unused arrays, except of parts that our network lacks."""
        used = set(self.names.values())
        return sorted(
            name for name in self.arrays if name not in used and not self._is_ignored(name)
        )

    def _is_ignored(self, name: str) -> bool:
        naming = self.naming
        if any(name.startswith(mark) or name.endswith(mark) for mark in naming.ignored):
            return True
        owner = name.rpartition(naming.separator)[0]
        heads = {theirs for ours, theirs in self.modules.items() if _part(ours) not in BACKBONES}
        absent = [p for m, own in naming.patterns.items() if not _has(self.shapes, m) for p in own]
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
    network: Delg,
    mapping: Mapping[str, str | float],
    classifiers: bool,
) -> _Plan:
    naming = best_naming(source, arrays, network.backbone)
    if network.dim_reduction == "fc":
        arrays = {**arrays, **_fused(naming, arrays)}
    modules = naming.modules(network.backbone)
    expected = _expected(network, classifiers)
    shapes = {path: shape for path, (_, shape) in expected.items()}
    names: dict[str, str | float | None] = {p: naming.name(p, modules) for p in shapes}
    if naming.patterns:
        names |= _find_by_pattern(naming, modules, shapes, arrays)
    names |= _check_mapping(mapping, shapes, arrays)
    wanted = {_part(module) for module in naming.patterns}
    present = {_part(p) for p, name in names.items() if p in mapping or name in arrays}
    kept = {*BACKBONES} | wanted | present
    names = {
        path: name
        for path, name in names.items()
        if _part(path) in kept and (name is not None or _part(path) in wanted)
    }
    collections = {path: collection for path, (collection, _) in expected.items()}
    return _Plan(naming, arrays, network, modules, shapes, collections, names)


def _expected(module: Delg, classifiers: bool) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Collection and shape of our variables by path, without initialising them."""
    variables = delg.init.eval_shape(module, jax.random.key(0))
    return {
        "/".join(path): (collection, leaf.shape)
        for (collection, *path), leaf in traverse_util.flatten_dict(variables).items()
        if classifiers or not path[0].endswith("_classifier")
    }


def _check_mapping(
    mapping: Mapping[str, str | float],
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> Mapping[str, str | float]:
    """The mapping; refused if it names an unknown variable."""
    subject = "config.model.pretrained_mapping"
    for ours, theirs in mapping.items():
        if ours not in shapes:
            raise UserError(subject, ours, "must name a variable of config.model")
        if isinstance(theirs, str) and theirs not in arrays:
            raise UserError(subject, theirs, "must name a variable of config.model.pretrained")
    return mapping


def _explain(
    source: str,
    names: Mapping[str, np.ndarray],
    network: Delg,
    missing: list[str],
    surplus: list[str],
    misshapen: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raises an error that explains the mismatch, if there is one.

    Args:
      source: a key of `names.NAMINGS`.
      names: all arrays in the file, by name.
      network: ours.
      missing: names that the file lacks.
      surplus: names that the network lacks.
      misshapen: the source's name, its converted shape and our shape, by our path.

    Raises:
      UserError: that names the wrong field (architecture, source or number of classes) if that
        explains the mismatch, else all names.
    """
    if not (missing or surplus or misshapen):
        return
    found = architecture_of(source, names)
    others = [other for other in NAMINGS if other != source and architecture_of(other, names)]
    if found and found != network.backbone:
        rule = f"must be {found}, the architecture of these weights"
        raise UserError("config.model.backbone", network.backbone, rule)
    if not found and others:
        rule = f"must be {others[0]}, the naming scheme of config.model.pretrained"
        raise UserError("config.model.pretrained_source", source, rule)
    for path, (_, shape, _) in misshapen.items():
        classes = network.num_classes
        if path.partition("/")[0].endswith("_classifier") and shape[-1:] != (classes,):
            rule = f"must be {shape[-1]}, the classes of these weights, or 0 to leave them out"
            raise UserError("config.model.num_classes", classes, rule)
    texts = [f"{name} {shape} instead of {ours}" for name, shape, ours in misshapen.values()]
    _refuse_names(source, {"missing": missing, "surplus": surplus, "misshapen": texts})


def _refuse_names(source: str, problems: dict[str, list[str]]) -> None:
    texts = [
        f"{len(names)} {label} ({', '.join(names)})" for label, names in problems.items() if names
    ]
    rule = f"config.model.pretrained does not fit these names: {'; '.join(texts)}"
    if NAMINGS[source][0].patterns:
        rule += "; map names with --mapping=FILE, a JSON object from ours to theirs"
    raise UserError("config.model.pretrained_source", source, rule)


def _find_by_pattern(
    naming: Naming,
    modules: Mapping[str, str],
    expected: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, str]:
    """Finds our variables in a source whose naming has patterns.

    The backbone may have any prefix; heads are found by their patterns, the first that fits. A
    module is found if exactly one of the source's modules has all its variables in the right
    shapes.

    Args:
      naming: with `patterns`.
      modules: the source's module by ours, as `naming.modules` gives.
      expected: shape of each of our variables, by path.
      arrays: the source's arrays by name.

    Returns:
      The source's name by our path, for the variables found.
    """
    wanted: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, shape in expected.items():
        module, _, leaf = path.rpartition("/")
        wanted.setdefault(module, {})[leaf] = shape
    owners = {name.rpartition("/")[0] for name in arrays}
    found: dict[str, str] = {}
    for module, shapes in wanted.items():
        patterns = naming.patterns.get(module, ())
        if module in modules:
            patterns = (rf"(^|/){re.escape(modules[module])}$",)
        for pattern in patterns:
            fits = [_fit(owner, module, shapes, arrays) for owner in _matching(pattern, owners)]
            whole_fits = [fit for fit in fits if fit]
            if len(whole_fits) == 1:
                found |= {f"{module}/{leaf}": name for leaf, name in whole_fits[0].items()}
            if whole_fits:
                break
    return found


def _matching(pattern: str, owners: set[str]) -> list[str]:
    return sorted(owner for owner in owners if re.search(pattern, owner, re.IGNORECASE))


def _fit(
    owner: str,
    module: str,
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, str] | None:
    """Names of a module's leaves under `owner`; None if one is missing or misshapen."""
    endings = _NORM if is_norm(module) else _CONVOLUTION
    names = {}
    for leaf, shape in shapes.items():
        for ending in endings[leaf]:
            name = f"{owner}/{ending}"
            if name in arrays and _same_but_ones(np.shape(arrays[name]), shape):
                names[leaf] = name
    return names if len(names) == len(shapes) else None


def _fused(naming: Naming, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of convolutions fused with the BatchNorm after them."""
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
            made[target + kernel], made[target + bias] = _fuse(
                arrays[needed[0]], arrays[needed[1]], statistics, epsilon
            )
    return made


def _fuse(
    kernel: np.ndarray, bias: np.ndarray, norm: dict[str, np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fuses a convolution with the BatchNorm after it.

    Args:
      kernel: [out, in, h, w].
      bias: [out].
      norm: `scale`, `bias`, `mean` and `var`, each [out].
      epsilon: of the BatchNorm.

    Returns:
      Kernel and bias of the same shapes, float32.
    """
    slope = norm["scale"] / np.sqrt(norm["var"] + epsilon)
    return (
        np.asarray(kernel * slope[:, None, None, None], np.float32),
        np.asarray((bias - norm["mean"]) * slope + norm["bias"], np.float32),
    )


def _to_flax(array: np.ndarray, path: str, shape: tuple[int, ...], naming: Naming) -> np.ndarray:
    """Converts one array to the layout of our variable.

    A dense layer and a 1x1 convolution hold the same numbers; each can fill the other.

    Args:
      array: of the source.
      path: of our variable, such as `resnet/stem_conv/kernel`.
      shape: of our variable.
      naming: of the source.

    Returns:
      float32, in `shape` if the array fits, else with its own shape.
    """
    array = np.asarray(array, np.float32)
    if naming.family == "vit" and not naming.output_first and path.startswith("vit/block"):
        array = array.reshape(shape) if array.size == np.prod(shape) else array  # heads are axes
    if naming.output_first and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
    elif naming.output_first and array.ndim == 2:
        array = array.T
    if naming.bgr and path == _STEM:
        array = array[:, :, ::-1]
    if _same_but_ones(array.shape, shape):
        array = array.reshape(shape)
    return np.array(array, order="C")


def _same_but_ones(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes are equal except for axes of length 1."""
    return [n for n in shape if n != 1] == [n for n in other if n != 1]


def _check_power(plan: _Plan) -> None:
    """Refuses another GeM power than that of the weights."""
    power = plan.arrays.get(plan.naming.single.get("power", ""))
    network = plan.network
    if power is None or network.gem_learned or network.pooling != "gem":
        return
    if abs(float(np.ravel(power)[0]) - network.gem_power) > 1e-6:
        rule = f"must be {float(np.ravel(power)[0])!r}, the power of these weights, unless "
        rule += "config.model.gem_learned is True"
        raise UserError("config.model.gem_power", network.gem_power, rule)


def _part(path: str) -> str:
    """The part of the network that a module or variable belongs to, such as `attend`."""
    return path.partition("/")[0]


def _has(shapes: Mapping[str, tuple[int, ...]], module: str) -> bool:
    return any(path.startswith(f"{module}/") for path in shapes)
