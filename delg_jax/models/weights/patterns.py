"""Finds variables whose exact names are not published: by pattern and shape."""

import re
from collections.abc import Mapping

import numpy as np

from delg_jax.models.weights.layout import same_but_ones
from delg_jax.models.weights.naming import Naming, is_norm

_CONVOLUTION = {"kernel": ("weights", "kernel"), "bias": ("biases", "bias")}
_NORM = {
    "scale": ("gamma",),
    "bias": ("beta",),
    "mean": ("moving_mean",),
    "var": ("moving_variance", "moving_var"),
}


def find(
    naming: Naming,
    modules: Mapping[str, str],
    expected: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, str]:
    """Names of our variables in a source whose naming has patterns.

    The backbone is looked for under any prefix, the heads by their patterns. A module is found if
    exactly one of the source's has all its variables in the right shapes.

    Args:
      naming: with `patterns`.
      modules: the source's module by ours, as `naming.modules` gives.
      expected: shape of each of our variables, by path.
      arrays: the source's arrays by name.

    Returns:
      The source's name by our path, of the variables that were found.
    """
    wanted: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, shape in expected.items():
        module, _, leaf = path.rpartition("/")
        wanted.setdefault(module, {})[leaf] = shape
    owners = {name.rpartition("/")[0] for name in arrays}
    found: dict[str, str] = {}
    for module, shapes in wanted.items():
        if module in modules:
            pattern = rf"(^|/){re.escape(modules[module])}$"
        elif module in naming.patterns:
            pattern = naming.patterns[module]
        else:
            continue
        fits = [_fit(owner, module, shapes, arrays) for owner in _matching(pattern, owners)]
        fits = [fit for fit in fits if fit]
        if len(fits) == 1:
            found |= {f"{module}/{leaf}": name for leaf, name in fits[0].items()}
    return found


def _matching(pattern: str, owners: set[str]) -> list[str]:
    return sorted(owner for owner in owners if re.search(pattern, owner, re.IGNORECASE))


def _fit(
    owner: str,
    module: str,
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, str] | None:
    """The names of a module's leaves under `owner`, or None if not all are there in shape."""
    endings = _NORM if is_norm(module) else _CONVOLUTION
    names = {}
    for leaf, shape in shapes.items():
        for ending in endings[leaf]:
            name = f"{owner}/{ending}"
            if name in arrays and same_but_ones(np.shape(arrays[name]), shape):
                names[leaf] = name
    return names if len(names) == len(shapes) else None
