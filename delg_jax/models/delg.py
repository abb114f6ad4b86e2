"""DELG: one network for global descriptors and local features (Cao et al., ECCV 2020)."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import struct

from delg_jax.errors import UserError, require_choice
from delg_jax.models import efficientnet, extent, heads, resnet, vit
from delg_jax.models.class_shards import ClassShards
from delg_jax.models.convention import get_convention, preprocess

_CHOICES = {
    "pooling": heads.POOLINGS,
    "global_loss": ("arcface", "softmax"),
    "attention": ("learned", "norm"),
    "attention_pooling": ("mean", "sum"),
    "dim_reduction": heads.REDUCTIONS,
}
_POSITIVE = ("gem_power", "global_dim", "attention_dim", "local_dim")
BACKBONES = ("resnet", "efficientnet", "vit")  # the names that the backbone's variables have
HEADS = ("joint", "global", "local")  # which heads to compute; joint = both
# Fields of config.model that give the source of weights; the others define the network
SOURCES = ("pretrained", "pretrained_source", "pretrained_mapping", "checkpoint")
# Initialisation runs once: optimising its compilation would cost more than it saves
_COMPILE_FAST = {"xla_backend_optimization_level": 0}


@struct.dataclass
class DelgOutputs:
    """Outputs of the network for a batch; None for parts that the model lacks or did not compute.

    With shards of classes, logits are those of the images of all devices of the host, for the
    classes of this device.

    Attributes:
      conv4: S of the paper, [B, H, W, C].
      conv5: D of the paper, [B, H, W, C].
      global_feature: float32 [B, D], g of equation 1, before normalisation.
      attention: float32 [B, H, W], a score per position of conv4.
      local_descriptors: [B, H, W, D], before normalisation.
      reconstruction: [B, H, W, C], S' of the paper; None without autoencoder.
      conv4_mask: bool [B, H, W], whether the image covers a position of conv4.
      global_logits: float32 [B, classes], of the global classifier; with ArcFace cosines, which
        `scale` multiplies. None unless classified, as the following fields.
      scale: gamma of ArcFace, float32 scalar; None with softmax.
      local_logits: float32 [B, classes], of the local classifier.
    """

    conv4: jax.Array
    conv5: jax.Array
    global_feature: jax.Array | None = None
    attention: jax.Array | None = None
    local_descriptors: jax.Array | None = None
    reconstruction: jax.Array | None = None
    conv4_mask: jax.Array | None = None
    global_logits: jax.Array | None = None
    scale: jax.Array | None = None
    local_logits: jax.Array | None = None

    @property
    def global_descriptor(self) -> jax.Array:
        """The unit-norm global descriptor, float32 [B, D]."""
        if self.global_feature is None:
            raise ValueError("global_feature (=None) must be computed")
        return heads.l2_normalize(self.global_feature)


class Delg(nn.Module):
    """The network; further fields are those of `config.model`, see `configs/default.py`.

    Attributes:
      dtype: of the computation; parameters stay float32.
      freeze_backbone: whether to stop gradients and BatchNorm updates in the backbone.
      norm_axis: device axis over which BatchNorm averages statistics, or None.
      freeze_norm: whether all BatchNorm statistics are fixed in training.
      norm_momentum: of BatchNorm's running statistics; 0 = that of the convention.
      initial_scale: initial gamma of the cosine classifier.
      class_shards: how the classifiers are split over devices; None if they are whole.
      relup: lower bound of the units of conv2 to conv4, see `resnet.ResNet`.
      regional: weight of regional means before pooling, see `regional.blend`.
      conv4_block: of a Vision Transformer, see `vit.VisionTransformer`.
    """

    backbone: str
    convention: str
    conv4_stride: int
    pooling: str
    gem_power: float
    gem_learned: bool
    whitening: bool
    global_dim: int
    global_loss: str
    local_head: bool
    attention: str
    attention_dim: int
    attention_pooling: str
    attention_normalize: bool
    dim_reduction: str
    local_dim: int
    stop_gradient: bool
    num_classes: int
    dtype: Any = jnp.float32
    freeze_backbone: bool = False
    freeze_norm: bool = False
    norm_axis: str | None = None
    norm_momentum: float = 0.0
    initial_scale: float = 45.254834
    class_shards: ClassShards | None = None
    relup: float = 0.0
    regional: float = 0.0
    conv4_block: int = 0

    def setup(self) -> None:
        """Builds the parts that the configuration asks for."""
        convention = get_convention(self.convention)
        momentum = self.norm_momentum or convention.momentum
        norm: dict[str, Any] = {"norm_momentum": momentum, "norm_axis": self.norm_axis}
        classes = self.class_shards.per_device if self.class_shards else self.num_classes
        if self.backbone in efficientnet.ARCHITECTURES:
            self.efficientnet = efficientnet.EfficientNet(self.backbone, dtype=self.dtype, **norm)
        elif self.backbone in vit.ARCHITECTURES:
            self.vit = vit.VisionTransformer(self.backbone, self.conv4_block, dtype=self.dtype)
        else:
            self.resnet = resnet.ResNet(
                self.backbone,
                self.convention,
                self.conv4_stride,
                dtype=self.dtype,
                relup=self.relup,
                **norm,
            )
        if self.gem_learned:
            self.power = self.param("power", nn.initializers.constant(self.gem_power), ())
        if self.whitening:
            self.whiten = nn.Dense(self.global_dim)
        if self.global_loss == "arcface":
            self.global_classifier: nn.Module = heads.CosineClassifier(classes, self.initial_scale)
        else:
            self.global_classifier = heads.SoftmaxClassifier(classes)
        if self.local_head:
            if self.attention == "learned":
                self.attend = heads.Attention(
                    self.attention_dim, convention.epsilon, dtype=self.dtype, **norm
                )
            self.reduce = heads.DimReduction(
                self.dim_reduction, self.local_dim, self.dtype, signed=convention.patches
            )
            self.local_classifier = heads.SoftmaxClassifier(classes)

    def __call__(
        self,
        images: jax.Array,
        sizes: jax.Array | None = None,
        train: bool = False,
        which: str = "joint",
    ) -> DelgOutputs:
        """Computes the heads from images.

        Args:
          images: [B, H, W, 3], RGB, scale 0 to 255; with `sizes`, H and W are multiples of 4 with a
            ResNet, of 32 with an EfficientNet.
          sizes: int32 [B, 2], rows and columns that each image covers from the top left; None for
            all. Results are those of each image alone.
          train: whether BatchNorm uses and updates batch statistics.
          which: one of `HEADS`, the heads to compute.

        Returns:
          DelgOutputs.
        """
        images = preprocess(images, get_convention(self.convention)).astype(self.dtype)
        learn_norm = train and not (self.freeze_norm or self.freeze_backbone)
        if self.backbone in vit.ARCHITECTURES:
            stages = self.vit(images, sizes)
        elif self.backbone in efficientnet.ARCHITECTURES:
            stages = self.efficientnet(images, sizes, train=learn_norm)
        else:
            stages = self.resnet(images, sizes, train=learn_norm)
        return self.heads(stages["conv4"], stages["conv5"], sizes, train, which)

    def heads(
        self,
        conv4: jax.Array,
        conv5: jax.Array,
        sizes: jax.Array | None = None,
        train: bool = False,
        which: str = "joint",
    ) -> DelgOutputs:
        """Computes the heads from the output of the backbone.

        Args:
          conv4: [B, H, W, C].
          conv5: [B, H, W, C].
          sizes: of the images, as for `__call__`.
          train: as for `__call__`.
          which: as for `__call__`.

        Returns:
          DelgOutputs.
        """
        conv4, conv5 = conv4.astype(self.dtype), conv5.astype(self.dtype)
        if self.freeze_backbone:
            conv4, conv5 = jax.lax.stop_gradient((conv4, conv5))
        mask = conv5_sizes = None
        if sizes is not None:
            convention = get_convention(self.convention)
            conv4_sizes = extent.conv4_sizes(sizes, convention, self.conv4_stride)
            mask = extent.inside(conv4.shape, conv4_sizes)
            conv5_sizes = extent.conv5_sizes(sizes, convention, self.conv4_stride)
        outputs = DelgOutputs(conv4, conv5, conv4_mask=mask)
        if which != "local":
            outputs = dataclasses.replace(
                outputs, global_feature=self._global_feature(conv5, conv5_sizes)
            )
        if not self.local_head or which == "global":
            return outputs
        local = jax.lax.stop_gradient(conv4) if self.stop_gradient else conv4
        descriptors, reconstruction = self.reduce(local)
        scores = (
            self.attend(local, train=train and not self.freeze_norm)
            if self.attention == "learned"
            else heads.norm_attention(local)
        )
        return dataclasses.replace(
            outputs,
            attention=scores,
            local_descriptors=descriptors,
            reconstruction=reconstruction,
        )

    @property
    def first_centre(self) -> float:
        """Pixel on which the first position of conv4 is centred."""
        return extent.first_centre(get_convention(self.convention), self.conv4_stride)

    def _global_feature(self, conv5: jax.Array, sizes: jax.Array | None) -> jax.Array:
        mask = None if sizes is None else extent.inside(conv5.shape, sizes)
        if self.regional:
            conv5 = heads.blend_regions(conv5, self.regional, sizes)
        power = self.power if self.gem_learned else self.gem_power
        feature = heads.pool(conv5, self.pooling, power, mask)
        return self.whiten(feature) if self.whitening else feature

    def classify(self, images: jax.Array, train: bool = False, which: str = "joint") -> DelgOutputs:
        """Computes the heads and their classifiers, for training and validation.

        Args:
          images: [B, H, W, 3], RGB, scale 0 to 255.
          train: whether BatchNorm uses and updates batch statistics.
          which: one of `HEADS`, the heads to compute.

        Returns:
          DelgOutputs with the logits of these heads.
        """
        return self._classified(self(images, train=train, which=which))

    def classify_maps(
        self, conv4: jax.Array, conv5: jax.Array, train: bool = False, which: str = "joint"
    ) -> DelgOutputs:
        """As `classify`, from the output of the backbone."""
        return self._classified(self.heads(conv4, conv5, train=train, which=which))

    def _classified(self, outputs: DelgOutputs) -> DelgOutputs:
        if outputs.global_feature is not None and self.global_loss == "arcface":
            cosines, scale = self.global_classifier(self._joined(outputs.global_descriptor))
            outputs = dataclasses.replace(outputs, global_logits=cosines, scale=scale)
        elif outputs.global_feature is not None:
            logits = self.global_classifier(self._joined(outputs.global_feature))
            outputs = dataclasses.replace(outputs, global_logits=logits)
        # The attention loss uses the reconstruction, or without an autoencoder the descriptors
        maps = outputs.reconstruction
        maps = outputs.local_descriptors if maps is None else maps
        if maps is None or outputs.attention is None:  # no local head
            return outputs
        pooled = heads.attend(
            maps,
            outputs.attention,
            self.attention_pooling,
            self.attention_normalize,
        )
        return dataclasses.replace(
            outputs, local_logits=self.local_classifier(self._joined(pooled))
        )

    def _joined(self, features: jax.Array) -> jax.Array:
        """The input of a classifier: features of all devices that hold its shards."""
        return self.class_shards.gather(features) if self.class_shards else features


def check_backbone(
    architecture: str, convention: str, conv4_stride: int, conv4_block: int = 0
) -> None:
    """Raises a UserError for an unknown backbone, or a convention, stride or block it lacks."""
    known = (*resnet.ARCHITECTURES, *efficientnet.ARCHITECTURES, *vit.ARCHITECTURES)
    require_choice("config.model.backbone", architecture, known)
    get_convention(convention)
    if architecture in vit.ARCHITECTURES:
        vit.check(architecture, convention, conv4_stride, conv4_block)
        return
    if conv4_block:
        rule = f"must be 0 with config.model.backbone={architecture}: it is of Vision Transformers"
        raise UserError("config.model.conv4_block", conv4_block, rule)
    family = efficientnet if architecture in efficientnet.ARCHITECTURES else resnet
    family.check(architecture, convention, conv4_stride)


def build(model: ml_collections.ConfigDict, **options: Any) -> Delg:
    """Builds the network that `config.model` describes.

    Args:
      model: the `config.model` tree.
      **options: fields of `Delg` that training sets (dtype, freeze_backbone, ...).

    Returns:
      The module, without parameters.

    Raises:
      UserError: if a field has an invalid value.
    """
    check_backbone(model.backbone, model.convention, model.conv4_stride, model.conv4_block)
    for field, choices in _CHOICES.items():
        require_choice(f"config.model.{field}", model[field], choices)
    for field in _POSITIVE:
        if not model[field] > 0:
            raise UserError(f"config.model.{field}", model[field], "must be above 0")
    if model.num_classes < 0:
        raise UserError("config.model.num_classes", model.num_classes, "must be 0 or above")
    fields = {name: value for name, value in model.items() if name not in SOURCES}
    return Delg(**{**fields, "num_classes": max(model.num_classes, 1), **options})


# Traced and compiled once for a module, however many networks a process opens
@functools.partial(jax.jit, static_argnames="module", compiler_options=_COMPILE_FAST)
def init(module: Delg, key: jax.Array) -> dict[str, Any]:
    """Draws the variables of `module`, classifiers included; deterministic for `key`."""
    return dict(module.init(key, np.zeros((1, 64, 64, 3), np.float32), method="classify"))
