"""Vision Transformers of Transformers and big_vision, small and with random weights.

`python -m tests.models.vit_references FOLDER` writes what they compute to `vit_goldens.npz` beside
this file. It needs torch and transformers; FOLDER is a clone of google-research/big_vision.
"""

import importlib.util
import pathlib
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from delg_jax.models import vit
from delg_jax.models.vit import Architecture
from delg_jax.models.weights.names import NAMINGS
from tests.models.weights.foreign import foreign, model_of
from tests.tiny import change_architecture

GOLDENS = pathlib.Path(__file__).with_name("vit_goldens.npz")
BLOCK = 2  # that gives S
_WIDTH, _DEPTH, _HEADS, _HIDDEN, _PATCH, _GRID = 12, 3, 2, 24, 8, 4


class Case(NamedTuple):
    """A model.

    Attributes:
      source: of its names, a key of `NAMINGS`.
      naming: its number in `NAMINGS`.
      architecture: what it is.
      sizes: of the images, pixels.
    """

    source: str
    naming: int
    architecture: Architecture
    sizes: tuple[tuple[int, int], ...]


def _of(convention: str, **fields) -> Architecture:
    sizes = {"hidden": _HIDDEN} | fields
    return Architecture(convention, _PATCH, _GRID, _WIDTH, _DEPTH, _HEADS, **sizes)


_ALL = ((32, 32), (24, 16), (45, 61))  # the grid of the positions, fewer, more
CASES = {
    "dinov2": Case("dinov2", 0, _of("dinov2"), _ALL),
    # A SwiGLU has two thirds of four times the width, rounded up to a multiple of 8
    "gated": Case("dinov2", 0, _of("dinov2", gated=True, hidden=32), _ALL),
    "registers": Case("dinov2", 0, _of("dinov2", registers=3), _ALL),
    "siglip": Case("siglip", 1, _of("siglip"), _ALL),
    # big_vision interpolates positions as it loads them, and here only the model is compared
    "big_vision": Case("siglip", 0, _of("siglip"), _ALL[:1]),
}


class Inputs(NamedTuple):
    """What a model is compared on: our variables, its own arrays, and images [H, W, 3]."""

    ours: dict[tuple[str, ...], np.ndarray]
    theirs: dict[str, np.ndarray]
    images: list[np.ndarray]


def inputs(name: str, monkeypatch) -> Inputs:
    """Draws the same for a case in every run; `name` becomes an architecture."""
    case = CASES[name]
    change_architecture(monkeypatch, vit.ARCHITECTURES, name, case.architecture)
    fields = {"conv4_stride": _PATCH, "local_head": False, "whitening": False, "num_classes": 0}
    model = model_of(name, case.architecture.convention, **fields)
    rng = np.random.default_rng(len(name))
    ours, theirs = foreign(NAMINGS[case.source][case.naming], model, rng)
    images = [rng.normal(size=(*size, 3)).astype(np.float32) for size in case.sizes]
    return Inputs(ours, theirs, images)


Maps = Iterator[tuple[np.ndarray, np.ndarray]]  # S and D of each image, [H, W, C]


def transformers_maps(name: str, given: Inputs) -> Maps:
    """What Transformers computes with the arrays as a file of its own."""
    import torch
    from safetensors.numpy import save_file

    kind, config, special, options = _transformers_model(name)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        arrays = {
            # An embedding in a file has no axis for the batch
            key: np.ascontiguousarray(array[0] if "position_embedding.weight" in key else array)
            for key, array in given.theirs.items()
        }
        save_file(arrays, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model, found = kind.from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager"
        )
    unused = ("mask_token", "head.", "position_ids")
    missing = [k for k in found["missing_keys"] if not any(part in k for part in unused)]
    if missing or found["unexpected_keys"] or found["mismatched_keys"]:
        raise ValueError(f"found (={found}) must be all that gives the maps")
    model = model.eval()
    norm = getattr(model, "vision_model", model).post_layernorm if name == "siglip" else None
    norm = norm or model.layernorm
    for image in given.images:
        pixels = torch.from_numpy(image.transpose(2, 0, 1)[None])
        with torch.no_grad():
            outputs = model(pixels, output_hidden_states=True, **options)
            tokens = (norm(outputs.hidden_states[BLOCK]), outputs.last_hidden_state)
        shape = (image.shape[0] // _PATCH, image.shape[1] // _PATCH, _WIDTH)
        first, last = (one[0, special:].numpy().reshape(shape) for one in tokens)
        yield first, last


def _transformers_model(name: str):
    """Class and configuration, number of class and register tokens, and arguments of the call."""
    import transformers

    fields = {
        "hidden_size": _WIDTH,
        "num_hidden_layers": _DEPTH,
        "num_attention_heads": _HEADS,
        "patch_size": _PATCH,
        "image_size": _PATCH * _GRID,
    }
    if name == "siglip":
        config = transformers.SiglipVisionConfig(intermediate_size=_HIDDEN, **fields)
        return transformers.SiglipVisionModel, config, 0, {"interpolate_pos_encoding": True}
    fields |= {"mlp_ratio": 4 if name == "gated" else 2, "use_swiglu_ffn": name == "gated"}
    if name == "registers":
        config = transformers.Dinov2WithRegistersConfig(num_register_tokens=3, **fields)
        return transformers.Dinov2WithRegistersModel, config, 4, {}
    return transformers.Dinov2Model, transformers.Dinov2Config(**fields), 1, {}


def big_vision_maps(folder: pathlib.Path, given: Inputs) -> Maps:
    """What big_vision computes; `folder` is its clone."""
    import jax.numpy as jnp
    from flax import traverse_util

    module = _big_vision_vit(folder)
    model = module.Model(
        patch_size=(_PATCH, _PATCH),
        width=_WIDTH,
        depth=_DEPTH,
        mlp_dim=_HIDDEN,
        num_heads=_HEADS,
        pool_type="none",
    )
    params = traverse_util.unflatten_dict(dict(given.theirs), sep="/")
    for block in range(_DEPTH):
        layer = params["Transformer"][f"encoderblock_{block}"]["MultiHeadDotProductAttention_0"]
        split = (_HEADS, _WIDTH // _HEADS)
        for part in ("query", "key", "value"):
            layer[part]["kernel"] = layer[part]["kernel"].reshape(_WIDTH, *split)
            layer[part]["bias"] = layer[part]["bias"].reshape(split)
        layer["out"]["kernel"] = layer["out"]["kernel"].reshape(*split, _WIDTH)
    norm = params["Transformer"]["encoder_norm"]
    for image in given.images:
        found, parts = model.apply({"params": params}, jnp.asarray(image[None]))
        tokens = parts["encoder"][f"block{BLOCK - 1:02d}"]["+mlp"]
        first = module.nn.LayerNorm().apply({"params": norm}, tokens)
        shape = (image.shape[0] // _PATCH, image.shape[1] // _PATCH, _WIDTH)
        yield np.asarray(first[0]).reshape(shape), np.asarray(found[0]).reshape(shape)


def _big_vision_vit(folder: pathlib.Path) -> types.ModuleType:
    """Its file alone, as its other modules need TensorFlow."""
    package = types.ModuleType("big_vision")
    for name in ("utils", "models", "models.common"):
        sys.modules.setdefault(f"big_vision.{name}", types.ModuleType(name))
    package.utils = sys.modules["big_vision.utils"]  # type: ignore[attr-defined]
    sys.modules["big_vision.models"].common = sys.modules[  # type: ignore[attr-defined]
        "big_vision.models.common"
    ]
    sys.modules.setdefault("big_vision", package)
    path = folder / "big_vision" / "models" / "vit.py"
    spec = importlib.util.spec_from_file_location("big_vision.models.vit", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"folder (={str(folder)!r}) must hold big_vision/models/vit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write(folder: pathlib.Path) -> None:
    import pytest

    goldens = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in CASES:
            given = inputs(name, monkeypatch)
            compute: Callable[[], Maps] = (
                (lambda given=given: big_vision_maps(folder, given))
                if name == "big_vision"
                else (lambda name=name, given=given: transformers_maps(name, given))
            )
            for number, maps in enumerate(compute()):
                for key, values in zip(("conv4", "conv5"), maps, strict=True):
                    goldens[f"{name}/{number}/{key}"] = values
    np.savez_compressed(GOLDENS, **goldens)


if __name__ == "__main__":
    _write(pathlib.Path(sys.argv[1]))
