"""Vision Transformers (Dosovitskiy et al., ICLR 2021) as DINOv2 and SigLIP 2 train them.

Images of any sizes share a canvas: a patch that no image covers is hidden from the attention of the
others, and positions are interpolated to the grid of each image.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from delg_jax.errors import UserError
from delg_jax.models import extent
from delg_jax.models.convention import get_convention

_EPSILON = 1e-6  # of LayerNorm
_QUERIES = 512  # patches whose attention is computed at a time, which bounds its memory


class Architecture(NamedTuple):
    """A Vision Transformer.

    Attributes:
      convention: a key of `convention.CONVENTIONS`, which also is its family.
      patch: side of a patch, pixels.
      grid: side of the grid of positions that it was trained with, patches.
      width: channels.
      depth: number of blocks.
      heads: of the attention.
      hidden: channels inside the block's MLP.
      registers: number of register tokens (Darcet et al., ICLR 2024).
      gated: whether the MLP is a SwiGLU.
    """

    convention: str
    patch: int
    grid: int
    width: int
    depth: int
    heads: int
    hidden: int
    registers: int = 0
    gated: bool = False

    @property
    def is_dinov2(self) -> bool:
        """Whether there are a class token and LayerScale, and GELU is exact."""
        return self.convention == "dinov2"


def _architectures() -> dict[str, Architecture]:
    found = {}
    for name, width, depth, heads, hidden in (
        ("s", 384, 12, 6, 1536),
        ("b", 768, 12, 12, 3072),
        ("l", 1024, 24, 16, 4096),
        ("g", 1536, 40, 24, 4096),
    ):
        for ending, registers in (("", 0), ("_reg", 4)):
            found[f"dinov2_{name}14{ending}"] = Architecture(
                "dinov2", 14, 37, width, depth, heads, hidden, registers, gated=name == "g"
            )
    for name, resolutions, patch, width, depth, heads, hidden in (
        ("b16", (224, 256, 384, 512), 16, 768, 12, 12, 3072),
        ("b32", (256,), 32, 768, 12, 12, 3072),
        ("l16", (256, 384, 512), 16, 1024, 24, 16, 4096),
        ("so400m14", (224, 384), 14, 1152, 27, 16, 4304),
        ("so400m16", (256, 384, 512), 16, 1152, 27, 16, 4304),
        ("g16", (256, 384), 16, 1536, 40, 16, 6144),
    ):
        for resolution in resolutions:
            grid = resolution // patch
            found[f"siglip2_{name}_{resolution}"] = Architecture(
                "siglip", patch, grid, width, depth, heads, hidden
            )
    return found


ARCHITECTURES = _architectures()


def local_block(architecture: str, conv4_block: int) -> int:
    """The block, from 1, whose output is S: `conv4_block`, or if it is 0 that at two thirds."""
    return conv4_block or round(ARCHITECTURES[architecture].depth * 2 / 3)


def interpolation(counts: jax.Array, length: int, grid: int, antialias: bool) -> jax.Array:
    """Weights that interpolate `grid` positions to `counts`, bicubic as PyTorch does it.

    Args:
      counts: int32 [B], positions of each image along an axis.
      length: positions along the axis of the canvas.
      grid: positions along the axis of the embedding.
      antialias: whether the kernel widens where positions become fewer.

    Returns:
      float32 [B, length, grid]; rows of positions beyond an image's own are undefined.
    """
    step = grid / counts.astype(jnp.float32)[:, None]
    source = (jnp.arange(length, dtype=jnp.float32)[None, :] + 0.5) * step - 0.5
    if antialias:
        distances = jnp.arange(grid, dtype=jnp.float32)[None, None, :] - source[..., None]
        weights = _cubic(distances / jnp.maximum(step, 1.0)[..., None], -0.5)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        return weights / jnp.where(total > 0.0, total, 1.0)  # 0 far beyond an image's own
    first = jnp.floor(source)
    shift = source - first
    weights = jnp.zeros((*source.shape, grid), jnp.float32)
    for tap in range(-1, 3):  # the border repeats
        index = jnp.clip(first + tap, 0, grid - 1).astype(jnp.int32)
        weights += jax.nn.one_hot(index, grid) * _cubic(shift - tap, -0.75)[..., None]
    return weights


def _cubic(x: jax.Array, slope: float) -> jax.Array:
    """The kernel of cubic convolution (Keys, 1981)."""
    x = jnp.abs(x)
    near = ((slope + 2) * x - (slope + 3)) * x**2 + 1
    far = slope * (((x - 5) * x + 8) * x - 4)
    return jnp.where(x <= 1, near, jnp.where(x < 2, far, 0.0))


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    chunk: int = _QUERIES,
) -> jax.Array:
    """Scaled dot-product attention.

    Args:
      query: float [B, T, heads, D].
      key: float [B, T, heads, D].
      value: float [B, T, heads, D].
      mask: bool [B, T], the tokens to attend to, at least one; None for all.
      chunk: tokens whose attention is computed at a time; bounds the memory.

    Returns:
      [B, T, heads, D], of the dtype of `value`.
    """
    batch, tokens, heads, depth = query.shape
    query = query / jnp.asarray(depth**0.5, query.dtype)

    def attend_some(some: jax.Array) -> jax.Array:
        scores = jnp.einsum("bqhd,bkhd->bhqk", some, key).astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :], scores, -jnp.inf)
        shares = jax.nn.softmax(scores).astype(value.dtype)
        return jnp.einsum("bhqk,bkhd->bqhd", shares, value)

    if tokens <= chunk:
        return attend_some(query)
    parts = -(-tokens // chunk)
    query = jnp.pad(query, ((0, 0), (0, parts * chunk - tokens), (0, 0), (0, 0)))
    query = query.reshape(batch, parts, chunk, heads, depth).swapaxes(0, 1)
    found = jax.lax.map(attend_some, query).swapaxes(0, 1)
    return found.reshape(batch, parts * chunk, heads, depth)[:, :tokens]


class LayerScale(nn.Module):
    """A factor per channel (Touvron et al., ICCV 2021)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to the same shape."""
        gamma = self.param("gamma", nn.initializers.ones, (x.shape[-1],))
        return x * jnp.expand_dims(gamma.astype(x.dtype), range(x.ndim - 1))


class Block(nn.Module):
    """Attention and an MLP, each after a LayerNorm and added to its input.

    Attributes:
      architecture: of the transformer.
      dtype: of the computation.
    """

    architecture: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps tokens [B, T, C] to the output, which does not depend on tokens outside the mask."""
        heads, width = self.architecture.heads, self.architecture.width

        def normed(x: jax.Array, name: str) -> jax.Array:
            return nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name=name)(x)

        def dense(x: jax.Array, features: int, name: str) -> jax.Array:
            return nn.Dense(features, dtype=self.dtype, name=name)(x)

        def scaled(x: jax.Array, name: str) -> jax.Array:
            return LayerScale(name=name)(x) if self.architecture.is_dinov2 else x

        y = normed(x, "norm1")
        split = (*x.shape[:2], heads, width // heads)
        query, key, value = (
            dense(y, width, name).reshape(split) for name in ("query", "key", "value")
        )
        y = dense(attend(query, key, value, mask).reshape(x.shape), width, "out")
        x = x + scaled(y, "layer_scale1")
        y = normed(x, "norm2")
        if self.architecture.gated:
            gate, y = jnp.split(dense(y, 2 * self.architecture.hidden, "gated_in"), 2, axis=-1)
            y = dense(nn.silu(gate) * y, width, "gated_out")
        else:
            y = dense(y, self.architecture.hidden, "fc1")
            y = dense(nn.gelu(y, approximate=not self.architecture.is_dinov2), width, "fc2")
        return x + scaled(y, "layer_scale2")


class VisionTransformer(nn.Module):
    """A Vision Transformer without head.

    Attributes:
      architecture: a key of `ARCHITECTURES`.
      conv4_block: the block, from 1, whose output is S; 0 for that at two thirds of the depth.
      dtype: of the computation; parameters stay float32.
    """

    architecture: str
    conv4_block: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, sizes: jax.Array | None = None, train: bool = False
    ) -> dict[str, jax.Array]:
        """Computes the maps that the heads use, without class and register tokens.

        Pixels behind the last whole patch of an image are not used; an image below one patch is
        one patch. Both maps are after the final LayerNorm, as DINOv2's `get_intermediate_layers`
        gives them.

        Args:
          images: float32 [B, H, W, 3], preprocessed.
          sizes: int32 [B, 2], valid rows and columns of each image; None if all are whole.
          train: ignored, as nothing differs in training.

        Returns:
          `conv4` and `conv5`, each [B, H // patch, W // patch, C] and of any sign. With `sizes`,
          positions outside an image's own map are undefined (see `extent.conv4_sizes`).
        """
        del train
        spec = ARCHITECTURES[self.architecture]
        batch, height, width, _ = images.shape
        convention = get_convention(spec.convention)
        mask = None
        if sizes is None:
            counts = jnp.tile(jnp.asarray([[height, width]], jnp.int32), (batch, 1))
        else:
            images, counts = extent.clear_outside(images, sizes), sizes
        counts = extent.conv4_sizes(counts, convention, spec.patch)
        below = [(0, max(spec.patch - side, 0)) for side in (height, width)]
        images = jnp.pad(images, ((0, 0), *below, (0, 0)))
        side = (spec.patch, spec.patch)
        x = nn.Conv(spec.width, side, side, padding="VALID", dtype=self.dtype, name="embed")(images)
        shape = x.shape
        if sizes is not None:
            mask = extent.inside(shape, counts).reshape(batch, -1)
        special = int(spec.is_dinov2)
        positions = self.param(
            "positions", nn.initializers.normal(0.02), (1, special + spec.grid**2, spec.width)
        )
        x = x + self._interpolated(positions[0, special:], counts, shape).astype(x.dtype)
        x = x.reshape(batch, -1, spec.width)
        if spec.is_dinov2:
            x = jnp.concatenate([self._special(positions, batch), x], axis=1).astype(x.dtype)
            special += spec.registers
            if mask is not None:
                mask = jnp.pad(mask, ((0, 0), (special, 0)), constant_values=True)
        norm = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm")
        maps = {}
        for number in range(spec.depth):
            x = Block(spec, self.dtype, name=f"block{number}")(x, mask)
            if number + 1 == local_block(self.architecture, self.conv4_block):
                maps["conv4"] = norm(x[:, special:]).reshape(shape)
        return maps | {"conv5": norm(x[:, special:]).reshape(shape)}

    def _interpolated(
        self, positions: jax.Array, counts: jax.Array, shape: tuple[int, ...]
    ) -> jax.Array:
        """Positions [N, C] interpolated to the counts [B, 2] of a canvas of a shape."""
        spec = ARCHITECTURES[self.architecture]
        square = positions.reshape(spec.grid, spec.grid, -1)
        antialias = spec.registers > 0  # as DINOv2 was trained with registers, and not without
        rows, columns = (
            interpolation(counts[:, n], shape[n + 1], spec.grid, antialias) for n in (0, 1)
        )
        # TF32 would lose three digits of the position, in a product that costs nothing
        return jnp.einsum(
            "bhi,bwj,ijc->bhwc", rows, columns, square, precision=jax.lax.Precision.HIGHEST
        )

    def _special(self, positions: jax.Array, batch: int) -> jax.Array:
        """Class token, with its position, and register tokens, [B, T, C]."""
        spec = ARCHITECTURES[self.architecture]
        shape = (1, 1, spec.width)
        tokens = self.param("class_token", nn.initializers.normal(0.02), shape) + positions[:, :1]
        if spec.registers:
            shape = (1, spec.registers, spec.width)
            registers = self.param("registers", nn.initializers.normal(0.02), shape)
            tokens = jnp.concatenate([tokens, registers], axis=1)
        return jnp.broadcast_to(tokens, (batch, *tokens.shape[1:]))


def check(architecture: str, convention: str, conv4_stride: int, conv4_block: int = 0) -> None:
    """Raises a UserError for another convention, stride or block than the architecture has."""
    spec = ARCHITECTURES[architecture]
    with_it = f"with config.model.backbone={architecture}"
    if convention != spec.convention:
        rule = f"must be {spec.convention} {with_it}"
        raise UserError("config.model.convention", convention, rule)
    if conv4_stride != spec.patch:
        rule = f"must be {spec.patch} {with_it}, the side of its patches"
        raise UserError("config.model.conv4_stride", conv4_stride, rule)
    if not 0 <= conv4_block <= spec.depth:
        rule = f"must be from 1 to {spec.depth} {with_it}, or 0 for that at two thirds"
        raise UserError("config.model.conv4_block", conv4_block, rule)
