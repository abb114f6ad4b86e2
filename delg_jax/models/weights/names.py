"""How each source of weights calls the parts of our network: tables, no logic elsewhere."""

import dataclasses
from collections.abc import Callable

from delg_jax.models.resnet import ARCHITECTURES, STAGES


@dataclasses.dataclass(frozen=True)
class Naming:
    """One source's names.

    Attributes:
      modules: from an architecture to a mapping of our module path to the source's.
      convolution: our leaf name to the source's, for convolutions and dense layers.
      norm: our leaf name to the source's, for BatchNorm.
      separator: between module and leaf.
      output_first: whether kernels are [out, in, h, w] instead of [h, w, in, out].
      ignored: endings or beginnings of variables that have no place here (classifiers, counters).
    """

    modules: Callable[[str], dict[str, str]]
    convolution: dict[str, str]
    norm: dict[str, str]
    separator: str
    output_first: bool
    ignored: tuple[str, ...]


def _torchvision(architecture: str) -> dict[str, str]:
    names = {"resnet/stem_conv": "conv1", "resnet/stem_norm": "bn1"}
    for ours, stage, unit, convolutions in _units(architecture):
        theirs = f"layer{stage + 1}.{unit}"
        for n in range(1, convolutions + 1):
            names[f"{ours}/conv{n}"] = f"{theirs}.conv{n}"
            names[f"{ours}/norm{n}"] = f"{theirs}.bn{n}"
        names[f"{ours}/shortcut_conv"] = f"{theirs}.downsample.0"
        names[f"{ours}/shortcut_norm"] = f"{theirs}.downsample.1"
    return names


def _slim(architecture: str) -> dict[str, str]:
    root = f"resnet_v1_{architecture.removeprefix('resnet')}"
    names = {
        "resnet/stem_conv": f"{root}/conv1",
        "resnet/stem_norm": f"{root}/conv1/BatchNorm",
    }
    for ours, stage, unit, convolutions in _units(architecture):
        theirs = f"{root}/block{stage + 1}/unit_{unit + 1}/bottleneck_v1"
        for n in range(1, convolutions + 1):
            names[f"{ours}/conv{n}"] = f"{theirs}/conv{n}"
            names[f"{ours}/norm{n}"] = f"{theirs}/conv{n}/BatchNorm"
        names[f"{ours}/shortcut_conv"] = f"{theirs}/shortcut"
        names[f"{ours}/shortcut_norm"] = f"{theirs}/shortcut/BatchNorm"
    return names


def _keras(architecture: str) -> dict[str, str]:
    names = {
        "resnet/stem_conv": "conv1",
        "resnet/stem_norm": "bn_conv1",
        "whiten": "embedding_layer",
        "attend/conv1": "attention/attn_conv1",
        "attend/norm1": "attention/bn_conv1",
        "attend/conv2": "attention/attn_conv2",
        "reduce/encoder": "autoencoder/autoenc_conv1",
        "reduce/decoder": "autoencoder/autoenc_conv2",
    }
    for ours, stage, unit, convolutions in _units(architecture):
        theirs = f"{stage + 2}{'abcdefghijklmnopqrstuvwxyz'[unit]}_branch"
        for n in range(1, convolutions + 1):
            names[f"{ours}/conv{n}"] = f"res{theirs}2{'abc'[n - 1]}"
            names[f"{ours}/norm{n}"] = f"bn{theirs}2{'abc'[n - 1]}"
        names[f"{ours}/shortcut_conv"] = f"res{theirs}1"
        names[f"{ours}/shortcut_norm"] = f"bn{theirs}1"
    return names


def _units(architecture: str) -> list[tuple[str, int, int, int]]:
    """Our module path, stage, unit and number of convolutions, for every unit."""
    counts, bottleneck, _ = ARCHITECTURES[architecture]
    return [
        (f"resnet/{STAGES[stage]}_unit{unit + 1}", stage, unit, 3 if bottleneck else 2)
        for stage, count in enumerate(counts)
        for unit in range(count)
    ]


_TENSORFLOW_NORM = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}

NAMINGS = {
    "torchvision": Naming(
        modules=_torchvision,
        convolution={"kernel": "weight", "bias": "bias"},
        norm={"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
        separator=".",
        output_first=True,
        ignored=("fc.", "num_batches_tracked"),
    ),
    "slim": Naming(
        modules=_slim,
        convolution={"kernel": "weights", "bias": "biases"},
        norm=_TENSORFLOW_NORM,
        separator="/",
        output_first=False,
        ignored=("/logits/weights", "/logits/biases", "global_step", "mean_rgb", "Momentum"),
    ),
    "keras": Naming(
        modules=_keras,
        convolution={"kernel": "kernel", "bias": "bias"},
        norm=_TENSORFLOW_NORM,
        separator="/",
        output_first=False,
        ignored=("desc_fc/", "attn_fc/"),
    ),
}
