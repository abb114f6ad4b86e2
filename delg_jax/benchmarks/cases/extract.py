"""Extraction by networks with random weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Work
from delg_jax.benchmarks.peers.pytorch import TorchExtractor
from delg_jax.features import Extractor, pyramid, pyramid_level
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.models.delg import Delg
from delg_jax.models.variables import initialize

_SEVEN = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
_THREE = _SEVEN[3:6]
# Scales of local features by their number; global descriptors always have three [4.1]
_PYRAMIDS = {3: _THREE, 7: _SEVEN}
_BACKBONES = {"r18": "resnet18", "r50": "resnet50"}

# By name: the backbone and the number of scales
VARIANTS = {
    f"extract_{short}_{scales}": (backbone, scales)
    for short, backbone in _BACKBONES.items()
    for scales in _PYRAMIDS
}
_ACCELERATOR = {"images": 32, "long": 1024, "short": 768, "step": 32}
SIZES = {
    "standard": {"images": 8, "long": 512, "short": 384, "step": 32, "dtype": "float32"},
    "gpu": {**_ACCELERATOR, "dtype": "bfloat16"},
    "gpu_float32": {**_ACCELERATOR, "dtype": "float32"},
    "tiny": {"images": 2, "long": 48, "short": 40, "step": 32, "dtype": "float32"},
}


def network(backbone: str) -> Delg:
    """Returns DELG on a torchvision backbone, with conv4 at stride 16."""
    return Delg(
        backbone=backbone,
        convention="torchvision",
        conv4_stride=16,
        pooling="gem",
        gem_power=3.0,
        gem_learned=False,
        whitening=True,
        global_dim=2048,
        global_loss="arcface",
        local_head=True,
        attention="learned",
        attention_dim=512,
        attention_pooling="mean",
        attention_normalize=True,
        dim_reduction="ae",
        local_dim=128,
        stop_gradient=True,
        num_classes=1,
    )


def settings(scales: int, step: int, dtype: str) -> ExtractionSettings:
    """Returns the settings of extraction with 3 or 7 local scales."""
    return ExtractionSettings(_PYRAMIDS[scales], _THREE, dtype=dtype, shape_step=step)


def compare(
    backbone: str,
    scales: int,
    rng: np.random.Generator,
    images: int,
    long: int,
    short: int,
    step: int,
    dtype: str,
) -> Comparison:
    """Compares extractors on the same images.

    Args:
      backbone: of the network.
      scales: 3 or 7.
      rng: for weights and images.
      images: number of images, every other one upright.
      long: longer side, pixels.
      short: shorter side, pixels.
      step: `config.extract.shape_step`, pixels.
      dtype: of the computation.

    Returns:
      The comparison, per image.
    """
    module, config = network(backbone), settings(scales, step, dtype)
    variables = initialize(module, jax.random.key(int(rng.integers(2**31))))
    pixels = [
        rng.integers(0, 256, (*((long, short) if n % 2 else (short, long)), 3), np.uint8)
        for n in range(images)
    ]
    ours = Extractor(module, variables, config)

    def torch(name: str, batch: int) -> Implementation:
        peer = TorchExtractor(module, variables, config, batch)
        return Implementation(name, lambda: peer(pixels), images)

    return Comparison(
        "image",
        Implementation("Extractor", lambda: ours(pixels), images),
        {
            "loop": lambda: torch("PyTorch, an image and a scale at a time", 1),
            "batched": lambda: torch("PyTorch, batches of one size", images),
        },
        work=Work(operations(module, variables, config, (short, long)), dtype=dtype),
    )


def operations(
    module: Delg, variables: Any, config: ExtractionSettings, size: tuple[int, int]
) -> float:
    """Returns the operations for an image of `size` (height and width), without padding."""
    total = 0.0
    module = module.clone(dtype=jnp.dtype(config.dtype))
    for scale, count, pooled in pyramid_level.plan(module, config):
        target = pyramid.scaled_size(size, scale)
        shape = pyramid.canvas_shape(target, config.shape_step)
        image = jax.ShapeDtypeStruct((*shape, 3), np.float32)
        covered = jax.ShapeDtypeStruct((1, 2), np.int32)
        lowered = pyramid_level.extract_level.lower(
            module, variables, None, [image], covered, count, pooled
        )
        total += dict(lowered.cost_analysis() or {})["flops"] * np.prod(target) / np.prod(shape)
    return total


CASES = {
    name: Case(functools.partial(compare, *variant), SIZES) for name, variant in VARIANTS.items()
}
