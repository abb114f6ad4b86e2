"""ResNet backbones in all conventions, with the output of every stage."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from delg_jax.errors import UserError, require_choice
from delg_jax.models import extent
from delg_jax.models.convention import RESNET_CONVENTIONS, Convention, get_convention

# Name: (units per stage, bottleneck units, channels of the first stage).
ARCHITECTURES = {
    "tiny": ((1, 1, 1, 1), False, 16),
    "resnet18": ((2, 2, 2, 2), False, 64),
    "resnet50": ((3, 4, 6, 3), True, 64),
    "resnet101": ((3, 4, 23, 3), True, 64),
}
STAGES = ("conv2", "conv3", "conv4", "conv5")


class ResidualUnit(nn.Module):
    """A bottleneck (1x1, 3x3, 1x1) or basic (3x3, 3x3) unit with its shortcut.

    Attributes:
      features: channels of the 3x3 convolution.
      bottleneck: whether the unit is a bottleneck, with 4 * `features` output channels.
      stride: 1 or 2.
      stride_first: whether a bottleneck strides on its first convolution instead of the 3x3.
      conv: convolution module, bound except for features, kernel, strides, padding and name.
      norm: BatchNorm module, bound except for its name.
      floor: lower bound of the output; 0 for a ReLU.
    """

    features: int
    bottleneck: bool
    stride: int
    stride_first: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    floor: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, sizes: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """Maps [B, H, W, C] and valid sizes [B, 2] (or None) to the output and its sizes."""
        channels = self.features * (4 if self.bottleneck else 1)
        shortcut = self._shortcut(x, channels)
        if self.bottleneck:
            first = self.stride if self.stride_first else 1
            y = nn.relu(self._convolve(x, self.features, 1, first, "1"))
            sizes = extent.halve(sizes) if first == 2 and sizes is not None else sizes
            y = extent.clear_outside(y, sizes)
            y = nn.relu(self._convolve(y, self.features, 3, self.stride // first, "2"))
            y = self._convolve(y, channels, 1, 1, "3")
            halves = self.stride // first == 2
        else:
            y = extent.clear_outside(x, sizes)
            y = nn.relu(self._convolve(y, self.features, 3, self.stride, "1"))
            sizes = extent.halve(sizes) if self.stride == 2 and sizes is not None else sizes
            y = self._convolve(extent.clear_outside(y, sizes), channels, 3, 1, "2")
            halves = False
        sizes = extent.halve(sizes) if halves and sizes is not None else sizes
        y = y + shortcut
        return (jnp.maximum(y, self.floor) if self.floor else nn.relu(y)), sizes

    def _convolve(self, x: jax.Array, features: int, kernel: int, stride: int, name: str):
        padding = [(kernel // 2, kernel // 2)] * 2
        x = self.conv(
            features, (kernel, kernel), (stride, stride), padding=padding, name=f"conv{name}"
        )(x)
        return self.norm(name=f"norm{name}")(x)

    def _shortcut(self, x: jax.Array, channels: int) -> jax.Array:
        if x.shape[-1] == channels:
            return x[:, :: self.stride, :: self.stride]
        x = self.conv(
            channels, (1, 1), (self.stride, self.stride), padding="VALID", name="shortcut_conv"
        )(x)
        return self.norm(name="shortcut_norm")(x)


class ResNet(nn.Module):
    """A ResNet without classifier (He et al., CVPR 2016).

    Attributes:
      architecture: a key of `ARCHITECTURES`.
      convention: a key of `convention.CONVENTIONS`.
      conv4_stride: 16 or 32 pixels between positions of conv4; those of conv5 are always 32 apart.
      dtype: of the computation; parameters stay float32.
      norm_momentum: of BatchNorm's running statistics.
      norm_axis: device axis over which BatchNorm averages statistics, or None.
      relup: lower bound of the units of conv2 to conv4 (ReLUP, Shao et al., ICCV 2023).
    """

    architecture: str
    convention: str
    conv4_stride: int
    dtype: Any = jnp.float32
    norm_momentum: float = 0.9
    norm_axis: str | None = None
    relup: float = 0.0

    @nn.compact
    def __call__(
        self, images: jax.Array, sizes: jax.Array | None = None, train: bool = False
    ) -> dict[str, jax.Array]:
        """Computes the output of all stages.

        Args:
          images: float32 [B, H, W, 3], preprocessed; with `sizes`, H and W are multiples of 4.
          sizes: int32 [B, 2], valid rows and columns of each image; None if all are whole.
          train: whether BatchNorm uses batch statistics and updates the running ones.

        Returns:
          Maps by stage name `conv2` to `conv5`, each [B, H / stride, W / stride, C]. With `sizes`,
          positions outside an image's own map are undefined (see `extent.conv4_sizes`).

        Raises:
          ValueError: if `sizes` is given and H or W is not a multiple of 4.
        """
        convention = get_convention(self.convention)
        units, bottleneck, width = ARCHITECTURES[self.architecture]
        conv = functools.partial(nn.Conv, use_bias=convention.conv_bias, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.norm_momentum,
            epsilon=convention.epsilon,
            dtype=self.dtype,
            axis_name=self.norm_axis if train else None,
        )
        x, sizes = self._stem(images, sizes, conv, norm)
        outputs = {}
        for stage, count in enumerate(units):
            for unit in range(count):
                x, sizes = ResidualUnit(
                    features=width * 2**stage,
                    bottleneck=bottleneck,
                    stride=self._stride(stage, unit, count),
                    stride_first=convention.stride_on == "first_1x1",
                    conv=conv,
                    norm=norm,
                    floor=0.0 if STAGES[stage] == "conv5" else self.relup,
                    name=f"{STAGES[stage]}_unit{unit + 1}",
                )(x, sizes)
            if STAGES[stage] == "conv4" and self._subsamples_conv4():
                x = x[:, ::2, ::2]
                sizes = None if sizes is None else extent.halve(sizes)
            outputs[STAGES[stage]] = x
        return outputs

    def _stem(self, images, sizes, conv, norm) -> tuple[jax.Array, jax.Array | None]:
        convention = get_convention(self.convention)
        padding, pool_padding = _stem_padding(convention, sizes is not None)
        width = ARCHITECTURES[self.architecture][2]
        starts = None
        if sizes is not None:
            shifts = extent.stem_shift(sizes, convention)
            images = extent.shift(extent.clear_outside(images, sizes), shifts)
            starts = None if convention.stem_same else shifts // 2
            sizes = extent.halve(sizes)
        x = conv(width, (7, 7), (2, 2), padding=padding, name="stem_conv")(images)
        x = extent.clear_outside(nn.relu(norm(name="stem_norm")(x)), sizes, starts)
        x = nn.max_pool(x, (3, 3), (2, 2), pool_padding)
        return x, None if sizes is None else extent.pooled(sizes, convention)

    def _stride(self, stage: int, unit: int, count: int) -> int:
        if get_convention(self.convention).stride_on == "last_3x3":
            return 2 if stage < 3 and unit == count - 1 else 1
        after_subsampling = stage == 3 and self._subsamples_conv4()
        return 2 if stage > 0 and unit == 0 and not after_subsampling else 1

    def _subsamples_conv4(self) -> bool:
        return self.convention != "slim" and self.conv4_stride == 32


def _stem_padding(convention: Convention, ragged: bool) -> tuple[Any, Any]:
    """Paddings of the stem's convolution and max-pool; on a canvas, shifts implement SAME."""
    stem: Any = [(3, 3), (3, 3)]
    if convention.stem_same:
        stem = [(2, 3), (2, 3)] if ragged else "SAME"
    pool = {"same": [(0, 1)] * 2 if ragged else "SAME", "valid": "VALID", "symmetric": [(1, 1)] * 2}
    return stem, pool[convention.pool_padding]


def check(architecture: str, convention: str, conv4_stride: int) -> None:
    """Raises a UserError for an unknown backbone, or a convention or stride that ResNets lack."""
    require_choice("config.model.backbone", architecture, tuple(ARCHITECTURES))
    require_choice("config.model.convention", convention, RESNET_CONVENTIONS)
    if conv4_stride not in ((32,) if convention == "slim" else (16, 32)):
        rule = "must be 32 with the slim convention, else 16 or 32"
        raise UserError("config.model.conv4_stride", conv4_stride, rule)


def channels(architecture: str) -> tuple[int, int]:
    """Returns the channels of conv4 and conv5."""
    _, bottleneck, width = ARCHITECTURES[architecture]
    expansion = 4 if bottleneck else 1
    return width * 4 * expansion, width * 8 * expansion
