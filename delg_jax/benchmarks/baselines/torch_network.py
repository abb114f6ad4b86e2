"""DELG on torchvision's backbones in PyTorch, with our weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from delg_jax.benchmarks.case import import_peer
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
