"""A training step of DELG in PyTorch."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from delg_jax.benchmarks.baselines.torch_network import TorchNetwork
from delg_jax.benchmarks.case import import_peer
from delg_jax.losses import LossWeights
from delg_jax.models.delg import Delg


class TorchTrainer:
    """Our losses and optimiser, channels last, with autocast for bfloat16.

    Args:
      module: see `TorchNetwork`, with ArcFace.
      variables: its parameters and BatchNorm statistics.
      weights: of the losses.
      rate: learning rate of SGD with momentum.
      clip: largest norm of the gradients.
      dtype: of the computation; weights stay float32.
      compiled: whether to use `torch.compile`.

    Raises:
      Unavailable: if PyTorch is not installed.
    """

    def __init__(
        self,
        module: Delg,
        variables: Mapping[str, Any],
        weights: LossWeights,
        rate: float,
        clip: float,
        dtype: str,
        compiled: bool = False,
    ) -> None:
        self._torch = import_peer("torch", "torch")
        self._network = TorchNetwork(module, variables, "float32", True, channels_last=True)
        self._parameters = jax.tree.leaves(self._network.weights)
        self._optimizer = self._torch.optim.SGD(self._parameters, rate, momentum=0.9)
        self._losses, self._clip, self._dtype = weights, clip, dtype
        self._loss = self._torch.compile(self.loss) if compiled else self.loss

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Takes a step on uint8 images [B, H, W, 3] and labels int [B]; returns its loss."""
        torch, device = self._torch, self._network.device
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
        target = torch.from_numpy(labels).long().to(device)
        half = self._dtype == "bfloat16"
        with torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext():
            loss = self._loss(pixels, target)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()
        return float(loss.detach())

    def loss(self, pixels, labels):
        """Returns the loss of pixels [B, 3, H, W] and labels [B]; local losses stop at conv4."""
        functional, weights = self._torch.nn.functional, self._network.weights
        maps = self._network.stages(self._network.normalized(pixels), True)
        vectors, losses = self._network.global_descriptors(maps["conv5"]), self._losses
        total = losses.global_loss * self._arcface(vectors, labels)
        conv4 = maps["conv4"].detach()
        restored = self._network.restored(self._network.codes(conv4))
        error = functional.mse_loss(restored.float(), conv4.float())
        scores = self._network.attention(conv4)
        pooled = functional.normalize(restored.float(), dim=1) * scores[:, None]
        dense = weights["local_classifier"]["dense"]
        logits = pooled.mean(dim=(2, 3)) @ dense["kernel"] + dense["bias"]
        attention = functional.cross_entropy(logits, labels)
        return total + losses.reconstruction * error + losses.attention * attention

    def _arcface(self, vectors, labels):
        torch, functional = self._torch, self._torch.nn.functional
        classifier, margin = self._network.weights["global_classifier"], self._losses.margin
        cosines = (vectors @ functional.normalize(classifier["kernel"], dim=0)).clamp(-1.0, 1.0)
        sines = (1.0 - cosines.square()).clamp(min=1e-6).sqrt()
        rotated = cosines * math.cos(margin) - sines * math.sin(margin)
        rotated = torch.where(cosines >= -math.cos(margin), rotated, cosines)
        is_true = functional.one_hot(labels, cosines.shape[1]).bool()
        logits = classifier["scale"] * torch.where(is_true, rotated, cosines)
        return functional.cross_entropy(logits, labels)
