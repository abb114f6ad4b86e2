"""The conventions in which published backbones stride, pad and normalise their input."""

import dataclasses

import jax
import jax.numpy as jnp

from delg_jax.errors import require_choice


@dataclasses.dataclass(frozen=True)
class Convention:
    """How a backbone strides, pads and normalises its input.

    EfficientNets have one way to stride and pad, whose maps have the sizes of a `same` pool.
    Vision Transformers use only `patches`, epsilon, momentum (both for the attention head), mean
    and std.

    Attributes:
      stride_on: `last_3x3` (3x3 of a stage's last unit), `first_1x1` or `first_3x3` (of a stage's
        first unit). Basic units have no 1x1 and stride on their first 3x3.
      stem_same: whether the 7x7/2 stem pads like TensorFlow's SAME; else 3 pixels on each side.
      pool_padding: padding of the 3x3/2 max-pool: `same`, `valid` or `symmetric` (1 pixel).
      epsilon: of BatchNorm.
      momentum: of BatchNorm's running statistics, the share that is kept in each step.
      conv_bias: whether convolutions have biases.
      mean: subtracted from each input channel, on the scale 0 to 255.
      std: divisor of each input channel, on the scale 0 to 255.
      patches: whether positions are patches that do not overlap, without padding.
    """

    stride_on: str
    stem_same: bool
    pool_padding: str
    epsilon: float
    momentum: float
    conv_bias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patches: bool = False


_CENTRED = (128.0, 128.0, 128.0)
_IMAGENET = ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))

CONVENTIONS = {
    "slim": Convention("last_3x3", False, "same", 1e-5, 0.997, False, _CENTRED, _CENTRED),
    "keras": Convention("first_1x1", True, "valid", 1e-3, 0.99, True, _CENTRED, _CENTRED),
    # Channel means of the Caffe release
    "keras_applications": Convention(
        "first_1x1",
        False,
        "symmetric",
        1.001e-5,
        0.99,
        True,
        (123.68, 116.779, 103.939),
        (1.0,) * 3,
    ),
    "torchvision": Convention("first_3x3", False, "symmetric", 1e-5, 0.9, False, *_IMAGENET),
    "efficientnet": Convention(
        "first_3x3", True, "same", 1e-3, 0.99, False, (127.0,) * 3, (128.0,) * 3
    ),
    "dinov2": Convention("", False, "", 1e-5, 0.9, True, *_IMAGENET, patches=True),
    "siglip": Convention("", False, "", 1e-5, 0.9, True, (127.5,) * 3, (127.5,) * 3, patches=True),
}
RESNET_CONVENTIONS = ("slim", "keras", "keras_applications", "torchvision")


def get_convention(name: str) -> Convention:
    """Returns the convention called `name`; raises a UserError if it is unknown."""
    require_choice("config.model.convention", name, tuple(CONVENTIONS))
    return CONVENTIONS[name]


def preprocess(images: jax.Array, convention: Convention) -> jax.Array:
    """Normalises images [B, H, W, 3], scale 0 to 255, to the float32 input of the network."""
    mean = jnp.asarray(convention.mean, jnp.float32)[None, None, None, :]
    std = jnp.asarray(convention.std, jnp.float32)[None, None, None, :]
    return (images.astype(jnp.float32) - mean) / std
