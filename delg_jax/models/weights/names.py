"""The names under which weights are published: tables, no logic elsewhere.

A source that is published under several namings has several; the one that knows most of the arrays
is taken.
"""

import dataclasses

from delg_jax.models.weights.naming import Naming

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

# The released models: Slim backbones under any prefix. What their heads are called is not
# published, so those are found by what the names must contain.
_DELG_SAVEDMODEL = dataclasses.replace(
    _SLIM,
    ignored=("/logits/weights", "/logits/biases", *_TENSORFLOW_TRAINING),
    patterns={
        "whiten": r"whit|embed|global|gem|desc",
        "attend/conv1": r"att",
        "attend/norm1": r"att",
        "attend/conv2": r"att",
        "reduce/encoder": r"auto|enc|reduc",
        "reduce/decoder": r"auto|dec|reduc|expan",
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
    """ResNets of the pycls code base, which reads images as OpenCV does, under a prefix."""
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
        # Its local descriptors are the attention's first layer before the ReLU.
        "reduce/encoder": "localmodel.descriptors",
        "local_classifier/dense": "att_cls.fc",
    },
    single={"global_classifier/kernel": "desc_cls.weight"},
    fused={"localmodel.descriptors": ("localmodel.conv1", "localmodel.bn")},
)
# The re-ranking network of CVNet, the momentum encoder and SuperGlobal's unused layers.
_CVNET = ("conv2ds.", "cv_learner.", "encoder_k.", "queue", "seb1.", "seb2.", "sefc.")

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
}
