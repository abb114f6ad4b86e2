"""A training step on random images."""

from collections.abc import Callable

import jax
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Unavailable, Work
from delg_jax.benchmarks.cases.extract import network
from delg_jax.benchmarks.peers.pytorch import TorchTrainer
from delg_jax.losses import LossWeights
from delg_jax.models.variables import initialize
from delg_jax.training import optimizer, step
from delg_jax.training.optimizer import OptimizerSettings

_RATE, _CLIP = 1e-3, 10.0
_WEIGHTS = LossWeights(1.0, 10.0, 1.0, 0.1)  # the paper's
_TRAIN = OptimizerSettings(steps=1000, learning_rate=_RATE, clip_norm=_CLIP)


def compare(
    rng: np.random.Generator, backbone: str, images: int, side: int, classes: int, dtype: str
) -> Comparison:
    """Compares training steps of DELG on a torchvision ResNet.

    Args:
      rng: for images and labels.
      backbone: of the network.
      images: in a batch.
      side: of an image, pixels.
      classes: number of labels.
      dtype: of the computation; weights are float32.

    Returns:
      The comparison, per image.
    """
    module = network(backbone).clone(num_classes=classes, dtype=jax.numpy.dtype(dtype))
    variables = jax.device_get(initialize(module, jax.random.key(0)))  # the step donates its state
    pixels = rng.integers(0, 256, (images, side, side, 3), np.uint8)
    labels = rng.integers(0, classes, images).astype(np.int32)

    def torch(name: str, compiled: bool) -> Implementation:
        trainer = TorchTrainer(module, variables, _WEIGHTS, _RATE, _CLIP, dtype, compiled)
        if compiled:
            try:
                trainer(pixels, labels)
            except Exception as error:  # the compiler raises errors of any type
                raise Unavailable("peer", "torch.compile", _first_line(error)) from error
        return Implementation(name, lambda: trainer(pixels, labels), images)

    ours, operations = _ours(module, variables, {"image": pixels, "label": labels})
    return Comparison(
        "image",
        Implementation("train_step", ours, images),
        {
            "torch": lambda: torch("PyTorch, channels last", False),
            "compiled": lambda: torch("PyTorch, channels last, compiled", True),
        },
        work=Work(operations / images, dtype=dtype),
    )


def _ours(module, variables, batch: dict[str, np.ndarray]) -> tuple[Callable[[], float], float]:
    """Returns the step, which keeps its state, and its operations on all devices."""
    tx = optimizer.create_optimizer(_TRAIN)
    state = step.place(optimizer.create_state(variables, tx))
    update = step.parallel_train_step(state, module, tx, _WEIGHTS)
    device_batches = step.split_over_devices(batch)
    device_operations = update.lower(state, device_batches, False).cost_analysis()["flops"]

    def call() -> float:
        nonlocal state
        state, metrics = update(state, device_batches, False)
        return float(metrics["loss"])

    return call, device_operations * jax.local_device_count()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_GPU = {"backbone": "resnet50", "side": 512, "classes": 1000}
CASES = {
    "train": Case(
        compare,
        {
            "standard": {
                "backbone": "resnet50",
                "images": 2,
                "side": 128,
                "classes": 100,
                "dtype": "float32",
            },
            "gpu": {**_GPU, "images": 64, "dtype": "bfloat16"},
            "gpu_float32": {**_GPU, "images": 32, "dtype": "float32"},
            "tiny": {
                "backbone": "tiny",
                "images": 8,
                "side": 32,
                "classes": 3,
                "dtype": "float32",
            },
        },
    )
}
