"""Gives each layer of a Vision Transformer a name, where its file holds several in one array."""

from collections.abc import Mapping

import numpy as np

_IMAGE_TOWERS = ("params/img/", "img/")  # of big_vision's models of images and texts
_STACKED = "/encoderblock/"  # of big_vision, blocks along the first axis
_FUSED = ".attn.qkv."  # of DINOv2, query, key and value along the first axis
_POSITIONS = "vision_model.embeddings.position_embedding.weight"  # of Transformers, [N, D]


def regular(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits arrays that hold several layers, and leaves out big_vision's other towers.

    Args:
      arrays: as a file holds them, by name.

    Returns:
      Arrays by name, views where they were split; the same arrays for other networks.
    """
    for root in _IMAGE_TOWERS:
        if f"{root}embedding/kernel" in arrays:
            arrays = {n.removeprefix(root): a for n, a in arrays.items() if n.startswith(root)}
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if _STACKED in name and array.ndim:
            before, after = name.split(_STACKED, 1)
            found |= {f"{before}/encoderblock_{n}/{after}": one for n, one in enumerate(array)}
        elif _FUSED in name and array.ndim and len(array) % 3 == 0:
            parts = np.split(array, 3)
            found |= {
                name.replace(_FUSED, f".attn.{part}."): one
                for part, one in zip(("query", "key", "value"), parts, strict=True)
            }
        else:
            found[name] = array[None] if name == _POSITIONS and array.ndim == 2 else array
    return found
