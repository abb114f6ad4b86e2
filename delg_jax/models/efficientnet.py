"""EfficientNet-Lite backbones (Tan and Le, ICML 2019; Lite: Google, 2020)."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from delg_jax.errors import UserError
from delg_jax.models import extent
from delg_jax.models.convention import get_convention

CONVENTION = "efficientnet"
# Name: multipliers of the channels and of the blocks per stage
ARCHITECTURES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite2": (1.1, 1.2)}
CANVAS_MULTIPLE = 32  # of the sides of a canvas: the product of all strides

# Blocks, kernel, stride, expansion and channels of each stage. Lite does not scale the channels of
# stem and head, nor the blocks of the first and last stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_CONV4_STAGE = 5  # the last of stride 16 is the one before it
_STEM, _HEAD = 32, 1280  # channels


class Block(NamedTuple):
    """An inverted residual block.

    Attributes:
      stage: its stage, from 0.
      kernel: side of the depthwise convolution.
      stride: 1 or 2.
      expansion: channels of the depthwise convolution, in units of the input's; 1 = no expansion.
      features: channels of the output.
    """

    stage: int
    kernel: int
    stride: int
    expansion: int
    features: int


def blocks(architecture: str) -> Iterator[Block]:
    """Yields the blocks of an architecture in order."""
    width, depth = ARCHITECTURES[architecture]
    for stage, (count, kernel, stride, expansion, features) in enumerate(_STAGES):
        scaled = 0 < stage < len(_STAGES) - 1
        for index in range(math.ceil(depth * count) if scaled else count):
            first = index == 0
            yield Block(stage, kernel, stride if first else 1, expansion, _round(features * width))


def channels(architecture: str) -> tuple[int, int]:
    """Returns the channels of conv4 and conv5."""
    last = [block for block in blocks(architecture) if block.stage < _CONV4_STAGE][-1]
    entry = next(block for block in blocks(architecture) if block.stage == _CONV4_STAGE)
    return last.features * entry.expansion, _HEAD


def _round(features: float) -> int:
    """The multiple of 8 nearest to a number of channels, and not below 90 % of it."""
    rounded = max(8, int(features + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * features else rounded


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself, padded like TensorFlow's SAME.

    It is a sum of shifted products: XLA's own depthwise convolution takes 10 to 50 times as long on
    a CPU.

    Attributes:
      kernel: side of the kernel.
      stride: 1 or 2.
      dtype: of the output; the sum is float32.
    """

    kernel: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C]."""
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        rows, columns = (-(-side // self.stride) for side in x.shape[1:3])
        pads = [_same(side, self.kernel, self.stride) for side in x.shape[1:3]]
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        total = jnp.zeros((), jnp.float32)
        for i in range(self.kernel):
            for j in range(self.kernel):
                row, column = (slice(i, None, self.stride), slice(j, None, self.stride))
                part = x[:, row, column][:, :rows, :columns]
                total = total + (part * kernel[i, j, 0][None, None, None, :]).astype(jnp.float32)
        return total.astype(self.dtype)


def _same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis in TensorFlow's SAME padding, which depend on its length."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """A block: 1x1 expansion, depthwise convolution, 1x1 projection without an activation.

    Attributes:
      block: what to build.
      conv: 1x1 convolution module, bound except for features and name.
      norm: BatchNorm module, bound except for its name.
      dtype: of the computation.
    """

    block: Block
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, sizes: jax.Array | None, starts: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps [B, H, W, C] to the output and the expansion, which is the input if there is none.

        `sizes` and `starts` [B, 2] say where each image lies on the input; None if all are whole.
        """
        expanded = x
        if self.block.expansion > 1:
            expanded = self.conv(self.block.expansion * x.shape[-1], name="expand_conv")(x)
            expanded = nn.relu6(self.norm(name="expand_norm")(expanded))
        y = extent.clear_outside(expanded, sizes, starts)
        depthwise = DepthwiseConv(
            self.block.kernel, self.block.stride, self.dtype, name="depthwise_conv"
        )
        y = nn.relu6(self.norm(name="depthwise_norm")(depthwise(y)))
        y = self.norm(name="project_norm")(self.conv(self.block.features, name="project_conv")(y))
        shortcut = self.block.stride == 1 and x.shape[-1] == self.block.features
        return (x + y if shortcut else y), expanded


class EfficientNet(nn.Module):
    """An EfficientNet-Lite without classifier.

    Attributes:
      architecture: a key of `ARCHITECTURES`.
      dtype: of the computation; parameters stay float32.
      norm_momentum: of BatchNorm's running statistics.
      norm_axis: device axis over which BatchNorm averages statistics, or None.
    """

    architecture: str
    dtype: Any = jnp.float32
    norm_momentum: float = 0.99
    norm_axis: str | None = None

    @nn.compact
    def __call__(
        self, images: jax.Array, sizes: jax.Array | None = None, train: bool = False
    ) -> dict[str, jax.Array]:
        """Computes the maps that the heads use.

        conv4 is the expansion of the first block of the sixth stage, the last map of stride 16;
        conv5 is the last layer before the classifier's pooling.

        Args:
          images: float32 [B, H, W, 3], preprocessed; with `sizes`, H and W are multiples of 32.
          sizes: int32 [B, 2], valid rows and columns of each image; None if all are whole.
          train: whether BatchNorm uses batch statistics and updates the running ones.

        Returns:
          `conv4` [B, H / 16, W / 16, C] and `conv5` [B, H / 32, W / 32, C], not negative. With
          `sizes`, positions outside an image's own map are undefined (see `extent.conv4_sizes`).

        Raises:
          ValueError: if `sizes` is given and H or W is not a multiple of 32.
        """
        conv = functools.partial(
            nn.Conv, kernel_size=(1, 1), use_bias=False, dtype=self.dtype, padding="VALID"
        )
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.norm_momentum,
            epsilon=get_convention(CONVENTION).epsilon,
            dtype=self.dtype,
            axis_name=self.norm_axis if train else None,
        )
        starts = None
        if sizes is not None:
            # On even canvases SAME pads only behind. An image whose end lies on a multiple of all
            # strides needs no other padding there, and has that of its own size in front.
            starts = -sizes % CANVAS_MULTIPLE
            images = extent.clear_outside(images, sizes)
            images = extent.shift(images, starts, CANVAS_MULTIPLE)
        pads = [_same(side, 3, 2) for side in images.shape[1:3]]
        x = conv(_STEM, kernel_size=(3, 3), strides=2, padding=pads, name="stem_conv")(images)
        x = nn.relu6(norm(name="stem_norm")(x))
        sizes, starts = _halved(sizes, starts)
        conv4 = x
        for number, block in enumerate(blocks(self.architecture)):
            before = starts
            x, expanded = InvertedResidual(block, conv, norm, self.dtype, name=f"block{number}")(
                x, sizes, starts
            )
            if block.stride == 2:
                sizes, starts = _halved(sizes, starts)
            if block.stage == _CONV4_STAGE and block.stride == 2:
                conv4 = expanded if before is None else extent.roll(expanded, -before)
        x = conv(_HEAD, name="head_conv")(x)
        return {"conv4": conv4, "conv5": nn.relu6(norm(name="head_norm")(x))}


def _halved(
    sizes: jax.Array | None, starts: jax.Array | None
) -> tuple[jax.Array | None, jax.Array | None]:
    """Sizes and starts after a stride of 2."""
    if sizes is None or starts is None:
        return None, None
    return extent.halve(sizes), starts // 2


def check(architecture: str, convention: str, conv4_stride: int) -> None:
    """Raises a UserError for another convention or stride than those of the EfficientNets."""
    if convention != CONVENTION:
        rule = f"must be {CONVENTION} with config.model.backbone={architecture}"
        raise UserError("config.model.convention", convention, rule)
    if conv4_stride != 16:
        rule = f"must be 16 with config.model.backbone={architecture}"
        raise UserError("config.model.conv4_stride", conv4_stride, rule)
