"""HDF5 files of Keras weights: Keras 1 and 2, Keras applications, and Keras 3."""

import itertools
import re
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from delg_jax import hdf5_files
from delg_jax.models.weights.refusal import refusal, require_size

if TYPE_CHECKING:
    import h5py

_KERAS3_WEIGHTS = "model.weights.h5"  # the member of a `.keras` archive

# Keras 1, and Keras applications until 2018, name a variable by its layer, one of these and
# optionally a number. "running_std" holds the variance.
_KERAS1_LEAVES = {
    "W": "kernel",
    "b": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
_KERAS1_LEAF = re.compile(rf"_({'|'.join(_KERAS1_LEAVES)})(_\d+)?")

# Keras 3 only numbers the variables of a layer; their count tells its type
_KERAS3_LEAVES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the weights of a Keras model, not its optimiser's.

    The attributes `layer_names` and `weight_names` are redundant and ignored.

    Args:
      path: an HDF5 file, or a `.keras` archive with one inside.

    Returns:
      Arrays by layer/leaf, with the leaves of Keras 2.

    Raises:
      UserError: if two arrays have the same name, or one is too large.
      Exception: of any kind, if it is damaged.
    """
    arrays = {}
    with hdf5_files.reading(path, _unpacked(path)) as file:
        root = hdf5_files.member(file, "model_weights") or file
        datasets = {}
        root.visititems(  # which follows no links
            lambda place, item: datasets.update({place: item} if hasattr(item, "shape") else {})
        )
        for place, dataset in datasets.items():
            if place.startswith("optimizer/"):
                continue
            require_size(path, place, dataset.nbytes)
            name = _name(place, root)
            if name in arrays:
                raise refusal(path, f"must hold each array once; {name} occurs twice")
            arrays[name] = hdf5_files.read(dataset, place)
    return arrays


def _unpacked(path: str) -> bytes | None:
    """The HDF5 file in an archive; None if it is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        require_size(path, _KERAS3_WEIGHTS, archive.getinfo(_KERAS3_WEIGHTS).file_size)
        return archive.read(_KERAS3_WEIGHTS)


def _name(place: str, root: "h5py.Group") -> str:
    *groups, leaf = place.split("/")
    if groups and groups[-1] == "vars":
        return _keras3_name(groups, leaf, root)
    leaf = re.sub(r":\d+$", "", leaf)
    owner = groups[-1] if groups else ""
    old = _KERAS1_LEAF.fullmatch(leaf.removeprefix(owner))
    if old:
        leaf = _KERAS1_LEAVES[old[1]]
    once = [group for group, _ in itertools.groupby([*groups, leaf])]
    return "/".join(once)


def _keras3_name(groups: list[str], leaf: str, root: "h5py.Group") -> str:
    """Layer names are attributes of groups; the oldest files name groups by class only."""
    names = []
    for depth in range(1, len(groups)):
        variables = hdf5_files.member(root["/".join(groups[:depth])], "vars")
        if variables is not None:
            names.append(variables.attrs.get("name", groups[depth - 1]))
    leaves = _KERAS3_LEAVES.get(len(root["/".join(groups)]))
    return "/".join([*names, leaves[int(leaf)] if leaves else leaf])
