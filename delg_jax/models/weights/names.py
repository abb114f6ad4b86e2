"""How each source of weights calls the parts of our network: tables, no logic elsewhere."""

import dataclasses
from string import ascii_lowercase

from delg_jax.models.resnet import ARCHITECTURES, STAGES


@dataclasses.dataclass(frozen=True)
class Naming:
    """One source's names.

    In the names of `unit`, {layer} counts stages from 1, {stage} from 2 (conv2), {unit} units from
    1, {index} from 0, {letter} from a, {n} convolutions from 1 and {branch} from a.

    Attributes:
      convention: of the networks that come under these names.
      whole: our module path to the source's, for modules outside of residual units; {depth} is the
        number in the architecture's name.
      unit: our module name to the source's, for the modules of a residual unit.
      convolution: our leaf name to the source's, for convolutions and dense layers.
      norm: our leaf name to the source's, for BatchNorm.
      separator: between module and leaf.
      output_first: whether kernels are [out, in, h, w] instead of [h, w, in, out].
      ignored: endings or beginnings of variables that have no place here (classifiers, counters).
    """

    convention: str
    whole: dict[str, str]
    unit: dict[str, str]
    convolution: dict[str, str]
    norm: dict[str, str]
    separator: str
    output_first: bool
    ignored: tuple[str, ...]

    def modules(self, architecture: str) -> dict[str, str]:
        """The source's module path by ours, for every module of an architecture."""
        depth = architecture.removeprefix("resnet")
        names = {ours: theirs.format(depth=depth) for ours, theirs in self.whole.items()}
        counts, bottleneck, _ = ARCHITECTURES[architecture]
        for stage, count in enumerate(counts):
            for index in range(count):
                root = f"resnet/{STAGES[stage]}_unit{index + 1}"
                for n in range(1, 4 if bottleneck else 3):
                    place = {
                        "depth": depth,
                        "layer": stage + 1,
                        "stage": stage + 2,
                        "unit": index + 1,
                        "index": index,
                        "letter": ascii_lowercase[index],
                        "n": n,
                        "branch": ascii_lowercase[n - 1],
                    }
                    for ours, theirs in self.unit.items():
                        names[f"{root}/{ours.format(n=n)}"] = theirs.format(**place)
        return names


_SLIM_UNIT = "resnet_v1_{depth}/block{layer}/unit_{unit}/bottleneck_v1"
_TENSORFLOW_NORM = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}

NAMINGS = {
    "torchvision": Naming(
        convention="torchvision",
        whole={"resnet/stem_conv": "conv1", "resnet/stem_norm": "bn1"},
        unit={
            "conv{n}": "layer{layer}.{index}.conv{n}",
            "norm{n}": "layer{layer}.{index}.bn{n}",
            "shortcut_conv": "layer{layer}.{index}.downsample.0",
            "shortcut_norm": "layer{layer}.{index}.downsample.1",
        },
        convolution={"kernel": "weight", "bias": "bias"},
        norm={"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
        separator=".",
        output_first=True,
        ignored=("fc.", "num_batches_tracked"),
    ),
    "slim": Naming(
        convention="slim",
        whole={
            "resnet/stem_conv": "resnet_v1_{depth}/conv1",
            "resnet/stem_norm": "resnet_v1_{depth}/conv1/BatchNorm",
        },
        unit={
            "conv{n}": f"{_SLIM_UNIT}/conv{{n}}",
            "norm{n}": f"{_SLIM_UNIT}/conv{{n}}/BatchNorm",
            "shortcut_conv": f"{_SLIM_UNIT}/shortcut",
            "shortcut_norm": f"{_SLIM_UNIT}/shortcut/BatchNorm",
        },
        convolution={"kernel": "weights", "bias": "biases"},
        norm=_TENSORFLOW_NORM,
        separator="/",
        output_first=False,
        ignored=("/logits/weights", "/logits/biases", "global_step", "mean_rgb", "Momentum"),
    ),
    "keras": Naming(
        convention="keras",
        whole={
            "resnet/stem_conv": "conv1",
            "resnet/stem_norm": "bn_conv1",
            "whiten": "embedding_layer",
            "attend/conv1": "attention/attn_conv1",
            "attend/norm1": "attention/bn_conv1",
            "attend/conv2": "attention/attn_conv2",
            "reduce/encoder": "autoencoder/autoenc_conv1",
            "reduce/decoder": "autoencoder/autoenc_conv2",
        },
        unit={
            "conv{n}": "res{stage}{letter}_branch2{branch}",
            "norm{n}": "bn{stage}{letter}_branch2{branch}",
            "shortcut_conv": "res{stage}{letter}_branch1",
            "shortcut_norm": "bn{stage}{letter}_branch1",
        },
        convolution={"kernel": "kernel", "bias": "bias"},
        norm=_TENSORFLOW_NORM,
        separator="/",
        output_first=False,
        ignored=("desc_fc/", "attn_fc/"),
    ),
}
