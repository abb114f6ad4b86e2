"""DELG in PyTorch on the backbones of torchvision: network, extraction and a training step."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from delg_jax.benchmarks.case import import_peer
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pyramid import scaled_size
from delg_jax.features.pyramid_level import ExtractionSettings, LevelPlan, plan
from delg_jax.losses import LossWeights
from delg_jax.models.convention import get_convention
from delg_jax.models.delg import Delg
from delg_jax.models.resnet import ARCHITECTURES, STAGES

STRIDE = 16  # pixels between positions of conv4
_MOMENTUM = 0.1  # of BatchNorm in PyTorch's definition; 0.9 in ours


class TorchNetwork:
    """The maps and heads of DELG, on a GPU if PyTorch has one.

    Args:
      module: with torchvision's convention, stride 16, GeM, whitening, learned attention and `ae`.
      variables: its parameters and BatchNorm statistics.
      dtype: of weights and computation.
      train: whether BatchNorm uses batch statistics and parameters have gradients.
      channels_last: memory format of kernels.

    Attributes:
      weights: tensors, nested like the parameters.
      device: cuda or cpu.
    """

    def __init__(
        self,
        module: Delg,
        variables: Mapping[str, Any],
        dtype: str,
        train: bool = False,
        channels_last: bool = False,
    ) -> None:
        self._torch = import_peer("torch", "torch")
        self._module, self._train, self._channels_last = module, train, channels_last
        self.device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._dtype = getattr(self._torch, dtype)
        self.weights = jax.tree.map(self._tensor, dict(variables["params"]))
        self._statistics = jax.tree.map(self._tensor, dict(variables["batch_stats"]))
        if train:
            for tensor in jax.tree.leaves(self.weights):
                tensor.requires_grad_(True)

    def _tensor(self, array: Any) -> Any:
        array = np.asarray(array, np.float32)
        if array.ndim == 4:  # our kernels are [height, width, in, out]
            array = array.transpose(3, 2, 0, 1)
        tensor = self._torch.from_numpy(np.array(array, order="C")).to(self.device, self._dtype)
        if array.ndim == 4 and self._channels_last:
            tensor = tensor.to(memory_format=self._torch.channels_last)
        return tensor

    def normalized(self, pixels):
        """Normalises pixels [B, 3, H, W] from 0 to 255 for the network."""
        convention = get_convention(self._module.convention)
        mean, std = (
            self._torch.tensor(values, device=self.device)[None, :, None, None]
            for values in (convention.mean, convention.std)
        )
        pixels = ((pixels - mean) / std).to(self._dtype)
        if self._channels_last:
            pixels = pixels.to(memory_format=self._torch.channels_last)
        return pixels

    def stages(self, x, whole: bool) -> dict[str, Any]:
        """Returns maps [B, C, H, W] of conv4 and, if `whole`, conv5."""
        functional = self._torch.nn.functional
        x = functional.relu(self._convolve(x, ("resnet",), "stem_conv", "stem_norm", 2, 3))
        x = functional.max_pool2d(x, 3, 2, padding=1)
        counts, bottleneck, _ = ARCHITECTURES[self._module.backbone]
        maps = {}
        for stage, count in enumerate(counts if whole else counts[:3]):
            for unit in range(count):
                path = ("resnet", f"{STAGES[stage]}_unit{unit + 1}")
                x = self._unit(x, path, 2 if stage and not unit else 1, bottleneck)
            maps[STAGES[stage]] = x
        return maps

    def global_descriptors(self, conv5):
        """Returns unit vectors float32 [B, D]."""
        power, whiten = self._module.gem_power, self.weights["whiten"]
        pooled = conv5.float().clamp(min=1e-6).pow(power).mean(dim=(2, 3)).pow(1 / power)
        vectors = pooled @ whiten["kernel"].float() + whiten["bias"].float()
        return self._torch.nn.functional.normalize(vectors, dim=1)

    def attention(self, conv4):
        """Returns scores float32 [B, H, W]."""
        functional, last = self._torch.nn.functional, self.weights["attend"]["conv2"]
        hidden = functional.relu(self._convolve(conv4, ("attend",), "conv1", "norm1", 1, 0))
        scores = functional.conv2d(hidden, last["kernel"], last["bias"])
        return functional.softplus(scores.float())[:, 0]

    def codes(self, conv4):
        """Returns local descriptors [B, D, H, W], not normalised."""
        encoder = self.weights["reduce"]["encoder"]
        return self._torch.nn.functional.conv2d(conv4, encoder["kernel"], encoder["bias"])

    def restored(self, codes):
        """Returns the decoder's output for the codes, [B, C, H, W]."""
        functional, decoder = self._torch.nn.functional, self.weights["reduce"]["decoder"]
        return functional.relu(functional.conv2d(codes, decoder["kernel"], decoder["bias"]))

    def _unit(self, x, path: tuple[str, str], stride: int, bottleneck: bool):
        relu = self._torch.nn.functional.relu
        layers = ((0, 1), (1, stride), (0, 1)) if bottleneck else ((1, stride), (1, 1))
        y = x
        for n, (padding, step) in enumerate(layers, start=1):
            y = self._convolve(y, path, f"conv{n}", f"norm{n}", step, padding)
            y = y if n == len(layers) else relu(y)
        if "shortcut_conv" in _at(self.weights, path):
            x = self._convolve(x, path, "shortcut_conv", "shortcut_norm", stride, 0)
        return relu(y + x)

    def _convolve(self, x, path: tuple[str, ...], conv: str, norm: str, stride: int, padding: int):
        functional, weights = self._torch.nn.functional, _at(self.weights, path)
        kernel, bias = weights[conv]["kernel"], weights[conv].get("bias")
        x = functional.conv2d(x, kernel, bias, stride=stride, padding=padding)
        statistics = _at(self._statistics, path)[norm]
        return functional.batch_norm(
            x,
            statistics["mean"],
            statistics["var"],
            weights[norm]["scale"],
            weights[norm]["bias"],
            training=self._train,
            momentum=_MOMENTUM,
            eps=get_convention(self._module.convention).epsilon,
        )


def _at(tree: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    for name in path:
        tree = tree[name]
    return tree


class TorchExtractor:
    """Extracts the same features as `Extractor`, on a GPU if PyTorch has one.

    Args:
      module: see `TorchNetwork`.
      variables: its parameters and BatchNorm statistics.
      settings: of `cases.extract.settings`.
      batch: images of one size in a batch.
    """

    def __init__(
        self,
        module: Delg,
        variables: Mapping[str, Any],
        settings: ExtractionSettings,
        batch: int = 1,
    ) -> None:
        self._torch = import_peer("torch", "torch")
        self._settings, self._batch = settings, batch
        self._plan = plan(module, settings)
        self._network = TorchNetwork(module, variables, settings.dtype, channels_last=batch > 1)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Extracts from uint8 images [h, w, 3]."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(number)
        found: dict[int, Features] = {}
        with self._torch.inference_mode():
            for numbers in by_shape.values():
                for start in range(0, len(numbers), self._batch):
                    part = numbers[start : start + self._batch]
                    features = self._extract(np.stack([images[number] for number in part]))
                    found |= dict(zip(part, features, strict=True))
        return [found[number] for number in range(len(images))]

    def _extract(self, images: np.ndarray) -> list[Features]:
        torch = self._torch
        pixels = torch.from_numpy(images).to(self._network.device).permute(0, 3, 1, 2).float()
        height, width = images.shape[1:3]
        vectors, levels = [], []
        for level in self._plan:
            vector, local = self._level(pixels, (height, width), level)
            vectors += [vector] if level.pooled else []
            levels += [local] if level.max_features else []
        means = torch.nn.functional.normalize(torch.stack(vectors).mean(dim=0), dim=1)
        joined = [torch.cat(field, dim=1) for field in zip(*levels, strict=True)]
        order = torch.argsort(joined[2], dim=1, descending=True, stable=True)
        order = order[:, : self._settings.max_features]
        rows = torch.arange(len(images), device=order.device)[:, None]
        fields = [field[rows, order].cpu().numpy() for field in joined]
        mask = np.ones(order.shape, bool)
        return [
            Features(mean, LocalFeatures(*parts))
            for mean, *parts in zip(means.cpu().numpy(), *fields, mask, strict=True)
        ]

    def _level(self, pixels: Any, size: tuple[int, int], level: LevelPlan) -> tuple[Any, Any]:
        """Returns global descriptors [B, D] and the fields of local features of a level."""
        functional = self._torch.nn.functional
        target = scaled_size(size, level.scale)
        if target != size:
            pixels = functional.interpolate(pixels, target, mode="bilinear", align_corners=False)
        maps = self._network.stages(self._network.normalized(pixels), level.pooled)
        vectors = self._network.global_descriptors(maps["conv5"]) if level.pooled else None
        return vectors, self._local(maps["conv4"], level) if level.max_features else None

    def _local(self, maps: Any, level: LevelPlan) -> tuple[Any, ...]:
        torch = self._torch
        scores = self._network.attention(maps).flatten(1)
        codes = self._network.codes(maps).flatten(2)
        values, cells = scores.topk(min(level.max_features, scores.shape[1]), dim=1)
        places = torch.stack([cells // maps.shape[3], cells % maps.shape[3]], dim=2)
        chosen = codes.gather(2, cells[:, None].expand(-1, codes.shape[1], -1))
        descriptors = torch.nn.functional.normalize(chosen.transpose(1, 2).float(), dim=2)
        locations = (places * (STRIDE / level.scale)).float()
        return locations, torch.full_like(values, 1 / level.scale), values, descriptors


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
