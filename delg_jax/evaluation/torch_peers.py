"""Extraction as public PyTorch extractors do it: one image after the other, one scale at a time."""

import importlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.level import LevelPlan, plan
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pyramid import scaled_size
from delg_jax.models.convention import get_convention
from delg_jax.models.delg import Delg
from delg_jax.models.resnet import ARCHITECTURES, STAGES

_STRIDE = 16  # pixels between positions of conv4 in torchvision's networks


def installed_torch() -> types.ModuleType:
    """PyTorch; a UserError if it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        rule = "is not installed: pip install 'delg_jax[bench]'"
        raise UserError("package", "torch", rule) from error


class TorchExtractor:
    """The same features as those of `Extractor`, on a GPU if PyTorch has one.

    Args:
      module: of torchvision's convention, stride 16, GeM, whitening, learned attention and `ae`.
      variables: its parameters and BatchNorm statistics.
      settings: the `config.extract` tree.
    """

    def __init__(
        self, module: Delg, variables: Mapping[str, Any], settings: ml_collections.ConfigDict
    ) -> None:
        self._torch = installed_torch()
        self._module, self._settings = module, settings
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._dtype = getattr(self._torch, settings.dtype)
        self._weights = jax.tree.map(self._tensor, variables["params"])
        self._statistics = jax.tree.map(self._tensor, variables["batch_stats"])

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Extracts from uint8 images [h, w, 3]."""
        with self._torch.inference_mode():
            return [self._extract(image) for image in images]

    def _tensor(self, array: Any) -> Any:
        array = np.asarray(array, np.float32)
        if array.ndim == 4:  # kernels are [h, w, in, out] with us
            array = array.transpose(3, 2, 0, 1)
        tensor = self._torch.from_numpy(np.array(array, order="C"))
        return tensor.to(self._device, self._dtype)

    def _extract(self, image: np.ndarray) -> Features:
        torch = self._torch
        pixels = torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None].float()
        vectors, levels = [], []
        for wanted in plan(self._module, self._settings):
            vector, local = self._level(pixels, image.shape[:2], wanted)
            vectors += [vector] if wanted.pooled else []
            levels += [local] if wanted.count else []
        mean = torch.nn.functional.normalize(torch.stack(vectors).mean(dim=0), dim=0)
        joined = [torch.cat(field) for field in zip(*levels, strict=True)]
        order = torch.argsort(joined[2], descending=True, stable=True)
        order = order[: self._settings.max_features]
        local = [field[order].cpu().numpy() for field in joined]
        return Features(mean.cpu().numpy(), LocalFeatures(*local, np.ones(len(order), bool)))

    def _level(self, pixels, size: tuple[int, int], wanted: LevelPlan):
        """Global descriptor [D], and locations, scales, scores and descriptors of a level."""
        functional = self._torch.nn.functional
        target = scaled_size(size, wanted.scale)
        if target != tuple(size):
            pixels = functional.interpolate(pixels, target, mode="bilinear", align_corners=False)
        convention = get_convention(self._module.convention)
        mean, std = (
            self._torch.tensor(values, device=self._device)[None, :, None, None]
            for values in (convention.mean, convention.std)
        )
        maps = self._stages(((pixels - mean) / std).to(self._dtype), wanted.pooled)
        vector = self._global(maps["conv5"]) if wanted.pooled else None
        return vector, self._local(maps["conv4"], wanted) if wanted.count else None

    def _stages(self, x, whole: bool) -> dict[str, Any]:
        """Maps [1, C, H, W] of conv4 and, if `whole`, conv5."""
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

    def _unit(self, x, path: tuple[str, str], stride: int, bottleneck: bool):
        relu = self._torch.nn.functional.relu
        layers = ((0, 1), (1, stride), (0, 1)) if bottleneck else ((1, stride), (1, 1))
        y = x
        for n, (padding, step) in enumerate(layers, start=1):
            y = self._convolve(y, path, f"conv{n}", f"norm{n}", step, padding)
            y = y if n == len(layers) else relu(y)
        if "shortcut_conv" in _at(self._weights, path):
            x = self._convolve(x, path, "shortcut_conv", "shortcut_norm", stride, 0)
        return relu(y + x)

    def _convolve(self, x, path: tuple[str, ...], conv: str, norm: str, stride: int, padding: int):
        functional, weights = self._torch.nn.functional, _at(self._weights, path)
        kernel, bias = weights[conv]["kernel"], weights[conv].get("bias")
        x = functional.conv2d(x, kernel, bias, stride=stride, padding=padding)
        statistics = _at(self._statistics, path)[norm]
        scale, shift = weights[norm]["scale"], weights[norm]["bias"]
        epsilon = get_convention(self._module.convention).epsilon
        return functional.batch_norm(
            x, statistics["mean"], statistics["var"], scale, shift, eps=epsilon
        )

    def _global(self, maps):
        power, whiten = self._module.gem_power, self._weights["whiten"]
        pooled = maps.float().clamp(min=1e-6).pow(power).mean(dim=(2, 3)).pow(1 / power)[0]
        vector = pooled @ whiten["kernel"].float() + whiten["bias"].float()
        return self._torch.nn.functional.normalize(vector, dim=0)

    def _local(self, maps, wanted: LevelPlan):
        torch, functional = self._torch, self._torch.nn.functional
        hidden = functional.relu(self._convolve(maps, ("attend",), "conv1", "norm1", 1, 0))
        last, encoder = self._weights["attend"]["conv2"], self._weights["reduce"]["encoder"]
        scores = functional.conv2d(hidden, last["kernel"], last["bias"]).float()
        scores = functional.softplus(scores).flatten()
        codes = functional.conv2d(maps, encoder["kernel"], encoder["bias"])[0].flatten(1)
        values, cells = scores.topk(min(wanted.count, len(scores)))
        rows, columns = cells // maps.shape[3], cells % maps.shape[3]
        locations = torch.stack([rows, columns], dim=1) * (_STRIDE / wanted.scale)
        scales = torch.full_like(values, 1 / wanted.scale)
        descriptors = functional.normalize(codes[:, cells].T.float(), dim=1)
        return locations.float(), scales, values, descriptors


def _at(tree: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    for name in path:
        tree = tree[name]
    return tree
