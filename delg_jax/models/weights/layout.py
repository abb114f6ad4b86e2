"""Axes of arrays: from the layout of a source to that of ours."""

import numpy as np

from delg_jax.models.weights.naming import Naming

_STEM = "resnet/stem_conv/kernel"


def to_flax(array: np.ndarray, path: str, shape: tuple[int, ...], naming: Naming) -> np.ndarray:
    """Turns the axes of one array into those of our variable.

    A dense layer and a 1x1 convolution hold the same numbers; one is taken for the other.

    Args:
      array: as the source has it.
      path: of our variable, as `resnet/stem_conv/kernel`.
      shape: of our variable.
      naming: of the source.

    Returns:
      float32, of `shape` where the source's array can be; else what the axes give.
    """
    array = np.asarray(array, np.float32)
    if naming.output_first and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
    elif naming.output_first and array.ndim == 2:
        array = array.T
    if naming.bgr and path == _STEM:
        array = array[:, :, ::-1]
    if same_but_ones(array.shape, shape):
        array = array.reshape(shape)
    return np.array(array, order="C")


def same_but_ones(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ by axes of length 1 at most."""
    return [n for n in shape if n != 1] == [n for n in other if n != 1]


def fuse(
    kernel: np.ndarray, bias: np.ndarray, norm: dict[str, np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """A convolution that does what another and the BatchNorm after it do.

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
