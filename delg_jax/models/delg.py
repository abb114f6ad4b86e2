"""DELG: one network for global descriptors and local features (Cao et al., ECCV 2020)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from flax import struct

from delg_jax.errors import UserError, require_choice
from delg_jax.models import extent, heads, pooling, regional, resnet
from delg_jax.models.convention import get_convention, preprocess

_CHOICES = {
    "pooling": pooling.POOLINGS,
    "global_loss": ("arcface", "softmax"),
    "attention": ("learned", "norm"),
    "attention_pooling": ("mean", "sum"),
    "dim_reduction": heads.KINDS,
}
_POSITIVE = ("gem_power", "global_dim", "attention_dim", "local_dim")
# Fields of config.model that give the source of weights; the others define the network
SOURCES = ("pretrained", "pretrained_source", "pretrained_mapping", "checkpoint")


@struct.dataclass
class DelgOutputs:
    """Outputs of the network for a batch; None for parts that the model lacks.

    Attributes:
      conv4: S of the paper, [B, H, W, C].
      conv5: D of the paper, [B, H, W, C].
      global_feature: float32 [B, D], g of equation 1, before normalisation.
      attention: float32 [B, H, W], a score per position of conv4.
      local_descriptors: [B, H, W, D], before normalisation.
      reconstruction: [B, H, W, C], S' of the paper; None without autoencoder.
      conv4_mask: bool [B, H, W], whether the image covers a position of conv4.
    """

    conv4: jax.Array
    conv5: jax.Array
    global_feature: jax.Array
    attention: jax.Array | None
    local_descriptors: jax.Array | None
    reconstruction: jax.Array | None
    conv4_mask: jax.Array | None

    @property
    def global_descriptor(self) -> jax.Array:
        """The unit-norm global descriptor, float32 [B, D]."""
        return pooling.l2_normalize(self.global_feature)


class Delg(nn.Module):
    """The network; further fields are those of `config.model`, see `configs/default.py`.

    Attributes:
      dtype: of the computation; parameters stay float32.
      freeze_backbone: whether to stop gradients and BatchNorm updates in the backbone.
      norm_axis: device axis over which BatchNorm averages statistics, or None.
      freeze_norm: whether all BatchNorm statistics are fixed in training.
      initial_scale: initial gamma of the cosine classifier.
      relup: lower bound of the units of conv2 to conv4, see `resnet.ResNet`.
      regional: weight of regional means before pooling, see `regional.blend`.
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
    norm_momentum: float = 0.9
    initial_scale: float = 45.254834
    relup: float = 0.0
    regional: float = 0.0

    def setup(self) -> None:
        """Builds the parts that the configuration asks for."""
        norm: dict[str, Any] = {"norm_momentum": self.norm_momentum, "norm_axis": self.norm_axis}
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
            self.global_classifier: nn.Module = heads.CosineClassifier(
                self.num_classes, self.initial_scale
            )
        else:
            self.global_classifier = heads.SoftmaxClassifier(self.num_classes)
        if self.local_head:
            if self.attention == "learned":
                epsilon = get_convention(self.convention).epsilon
                self.attend = heads.Attention(self.attention_dim, epsilon, dtype=self.dtype, **norm)
            self.reduce = heads.DimReduction(self.dim_reduction, self.local_dim, dtype=self.dtype)
            self.local_classifier = heads.SoftmaxClassifier(self.num_classes)

    def __call__(
        self, images: jax.Array, sizes: jax.Array | None = None, train: bool = False
    ) -> DelgOutputs:
        """Computes both heads.

        Args:
          images: [B, H, W, 3], RGB, scale 0 to 255; with `sizes`, H and W are multiples of 4.
          sizes: int32 [B, 2], rows and columns that each image covers from the top left; None for
            all. Results are those of each image alone.
          train: whether BatchNorm uses and updates batch statistics.

        Returns:
          DelgOutputs.
        """
        convention = get_convention(self.convention)
        learn_norm = train and not self.freeze_norm
        images = preprocess(images, convention).astype(self.dtype)
        stages = self.resnet(images, sizes, train=learn_norm and not self.freeze_backbone)
        conv4, conv5 = stages["conv4"], stages["conv5"]
        if self.freeze_backbone:
            conv4, conv5 = jax.lax.stop_gradient((conv4, conv5))
        mask = conv5_sizes = None
        if sizes is not None:
            conv4_sizes = extent.conv4_sizes(sizes, convention, self.conv4_stride)
            mask = extent.inside(conv4.shape, conv4_sizes)
            conv5_sizes = extent.conv5_sizes(sizes, convention)
        feature = self._global_feature(conv5, conv5_sizes)
        outputs = DelgOutputs(conv4, conv5, feature, None, None, None, mask)
        if not self.local_head:
            return outputs
        local = jax.lax.stop_gradient(conv4) if self.stop_gradient else conv4
        descriptors, reconstruction = self.reduce(local)
        scores = (
            self.attend(local, train=learn_norm)
            if self.attention == "learned"
            else heads.norm_attention(local)
        )
        return dataclasses.replace(
            outputs,
            attention=scores,
            local_descriptors=descriptors,
            reconstruction=reconstruction,
        )

    def _global_feature(self, conv5: jax.Array, sizes: jax.Array | None) -> jax.Array:
        mask = None if sizes is None else extent.inside(conv5.shape, sizes)
        if self.regional:
            conv5 = regional.blend(conv5, self.regional, sizes)
        power = self.power if self.gem_learned else self.gem_power
        feature = pooling.pool(conv5, self.pooling, power, mask)
        return self.whiten(feature) if self.whitening else feature

    def classify(
        self, images: jax.Array, train: bool = False
    ) -> tuple[DelgOutputs, Any, jax.Array | None]:
        """Computes both heads and their classifiers, for training and validation.

        Args:
          images: [B, H, W, 3], RGB, scale 0 to 255.
          train: whether BatchNorm uses and updates batch statistics.

        Returns:
          DelgOutputs; the global classifier's output, (cosines [B, classes], gamma) for ArcFace or
          logits [B, classes] for softmax; the local classifier's logits [B, classes] or None.
        """
        outputs = self(images, train=train)
        if self.global_loss == "arcface":
            global_scores = self.global_classifier(outputs.global_descriptor)
        else:
            global_scores = self.global_classifier(outputs.global_feature)
        # The attention loss uses the reconstruction, or without an autoencoder the descriptors
        maps = outputs.reconstruction
        maps = outputs.local_descriptors if maps is None else maps
        if maps is None or outputs.attention is None:  # no local head
            return outputs, global_scores, None
        pooled = heads.attend(
            maps,
            outputs.attention,
            self.attention_pooling,
            self.attention_normalize,
        )
        return outputs, global_scores, self.local_classifier(pooled)


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
    resnet.check(model.backbone, model.convention, model.conv4_stride)
    for field, choices in _CHOICES.items():
        require_choice(f"config.model.{field}", model[field], choices)
    for field in _POSITIVE:
        if not model[field] > 0:
            raise UserError(f"config.model.{field}", model[field], "must be above 0")
    if model.num_classes < 0:
        raise UserError("config.model.num_classes", model.num_classes, "must be 0 or above")
    fields = {name: value for name, value in model.items() if name not in SOURCES}
    return Delg(**{**fields, "num_classes": max(model.num_classes, 1), **options})
