"""Classifiers split over the devices of a host: each device holds some of the classes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_WHOLE = ("scale",)  # parameters of classifiers that have no axis of classes


@dataclasses.dataclass(frozen=True)
class ClassShards:
    """How the classes are split, for code inside the `pmap` over all devices.

    Every host holds all classes. The axis index of a device is host * `devices` + its number on the
    host, as `pmap` orders them. Device i of a host holds the classes from i * `per_device`. The
    last shards may be padded with columns that belong to no class.

    Attributes:
      classes: number of classes.
      axis: name of the device axis.
      devices: number of devices of a host.
      hosts: number of hosts.
    """

    classes: int
    axis: str
    devices: int
    hosts: int = 1

    @property
    def per_device(self) -> int:
        """Number of columns of a shard, padding included."""
        return -(-self.classes // self.devices)

    @property
    def groups(self) -> list[list[int]]:
        """Axis indices of the devices of each host, which together hold all classes."""
        return [
            [host * self.devices + device for device in range(self.devices)]
            for host in range(self.hosts)
        ]

    @property
    def copies(self) -> list[list[int]]:
        """Axis indices of the devices that hold the same shard."""
        return [list(indices) for indices in zip(*self.groups, strict=True)]

    def first_class(self) -> jax.Array:
        """The first class of this device's shard, int32."""
        return jax.lax.axis_index(self.axis) % self.devices * self.per_device

    def gather(self, values: jax.Array) -> jax.Array:
        """Joins [B, ...] of the host's devices to [devices * B, ...]; has a gradient."""
        return _gather(values, self)

    def own(self, values: jax.Array) -> jax.Array:
        """This device's part [B, ...] of values [devices * B, ...]."""
        size = len(values) // self.devices
        start = jax.lax.axis_index(self.axis) % self.devices * size
        return jax.lax.dynamic_slice_in_dim(values, start, size)

    def sum(self, values: Any) -> Any:
        """Sums over the host's devices."""
        return jax.lax.psum(values, self.axis, axis_index_groups=self.groups)

    def max(self, values: jax.Array) -> jax.Array:
        """Maximum over the host's devices."""
        return jax.lax.pmax(values, self.axis, axis_index_groups=self.groups)

    def min(self, values: jax.Array) -> jax.Array:
        """Minimum over the host's devices."""
        return jax.lax.pmin(values, self.axis, axis_index_groups=self.groups)

    def without_padding(self, scores: jax.Array) -> jax.Array:
        """Scores [B, per_device] with -inf in the columns that belong to no class."""
        columns = self.first_class() + jnp.arange(self.per_device)
        return jnp.where(columns[None, :] < self.classes, scores, -jnp.inf)

    def mean_gradients(self, gradients: Any) -> Any:
        """Averages over all devices; of a shard, over the devices that hold it.

        Args:
          gradients: of the sum of all devices' losses: those of a shard already count the images of
            the whole host.

        Returns:
          Gradients of the mean loss over all devices.
        """
        split, whole = partition(gradients)
        split = jax.lax.psum(split, self.axis, axis_index_groups=self.copies)
        split = [leaf / (self.devices * self.hosts) for leaf in split]
        return combine(gradients, split, jax.lax.pmean(whole, self.axis))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(values: jax.Array, shards: ClassShards) -> jax.Array:
    return jax.lax.all_gather(values, shards.axis, axis_index_groups=shards.groups, tiled=True)


def _gather_forward(values: jax.Array, shards: ClassShards) -> tuple[jax.Array, None]:
    return _gather(values, shards), None


def _gather_backward(shards: ClassShards, _: None, gradients: jax.Array) -> tuple[jax.Array]:
    # Every device has the gradient through its own classes; the sum is that through all
    return (
        jax.lax.psum_scatter(gradients, shards.axis, axis_index_groups=shards.groups, tiled=True),
    )


_gather.defvjp(_gather_forward, _gather_backward)


def is_split(path: Sequence[Any]) -> bool:
    """Whether the leaf at a path of `jax.tree_util` has the classes as its last axis.

    Args:
      path: of a parameter, or of its momentum or gradient in a larger tree.
    """
    names = [getattr(key, "key", getattr(key, "name", None)) for key in path]
    return any(str(name).endswith("_classifier") for name in names) and names[-1] not in _WHOLE


def partition(tree: Any) -> tuple[list[Any], list[Any]]:
    """The leaves that have an axis of classes, and the others, each in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    split = [leaf for path, leaf in leaves if is_split(path)]
    return split, [leaf for path, leaf in leaves if not is_split(path)]


def combine(like: Any, split: Sequence[Any], whole: Sequence[Any]) -> Any:
    """The tree whose `partition` is `split` and `whole`; `like` has its structure."""
    left, right = iter(split), iter(whole)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: next(left if is_split(path) else right), like
    )


def map_split(function: Callable[[Any], Any], tree: Any) -> Any:
    """Applies a function to the leaves that have an axis of classes, and keeps the others."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(leaf) if is_split(path) else leaf, tree
    )


def norm(tree: Any, shards: ClassShards | None = None) -> jax.Array:
    """The global L2 norm of a tree; with shards, that of the whole classifiers.

    Args:
      tree: of arrays, whose shards differ between devices.
      shards: how the classes are split; None if every device holds all.

    Returns:
      float32 scalar.
    """
    return jnp.sqrt(squared_norm(tree, shards))


def squared_norm(tree: Any, shards: ClassShards | None = None) -> jax.Array:
    """The square of `norm`."""
    if shards is None:
        return _sum_of_squares(jax.tree.leaves(tree))
    split, whole = partition(tree)
    return _sum_of_squares(whole) + shards.sum(_sum_of_squares(split))


def _sum_of_squares(leaves: Sequence[jax.Array]) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), start=jnp.zeros(()))
