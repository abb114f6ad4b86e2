"""Extraction in PyTorch: one image and scale at a time, as public extractors do, or in batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from delg_jax.benchmarks.baselines.torch_network import STRIDE, TorchNetwork
from delg_jax.benchmarks.case import import_peer
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pyramid import scaled_size
from delg_jax.features.pyramid_level import LevelPlan, plan
from delg_jax.models.delg import Delg


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
        settings: ml_collections.ConfigDict,
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
