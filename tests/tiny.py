"""The smallest experiments: configurations and variables of a network of a few layers."""

from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax import configuration
from delg_jax.models import delg
from delg_jax.models.delg import Delg
from delg_jax.models.variables import shapes


def training_config(root: Path) -> ml_collections.ConfigDict:
    """Six steps of the tiny network on a folder data set, all heads."""
    config = tiny_config()
    config.data.name, config.data.root = "folder", str(root)
    config.data.image_size = 64
    config.data.crop_area = (0.5, 1.0)
    config.data.workers = 0
    config.train.steps = 6
    config.train.batch_size = 8
    config.train.learning_rate = 0.01
    config.train.log_every = 1
    config.train.eval_every = 3
    config.train.checkpoint_every = 3
    return config.lock()


def retrieval_config(root: Path) -> ml_collections.ConfigDict:
    """The tiny network, two scales, on a data set of the revisited layout."""
    config = tiny_config()
    config.data.name, config.data.root = "revisited", str(root)
    config.data.workers = 1
    config.model.conv4_stride, config.model.convention = 16, "torchvision"
    config.extract.local_scales = config.extract.global_scales = (1.0, 1.4142135)
    config.extract.max_features = 30
    config.extract.batch_pixels = 65_536
    config.extract.chunk_images = 3
    config.rerank.sp.hypotheses = 100
    config.rerank.sp.short_list = 4
    config.rerank.sp.min_inliers = 4
    config.rerank.mds.dim = 4
    return config.lock()


def revisited_config(root: Path) -> ml_collections.ConfigDict:
    """`retrieval_config` that puts all levels of the images of `make_revisited` on one canvas."""
    return configuration.override(retrieval_config(root), {"extract.shape_step": 160})


def command_line(config: ml_collections.ConfigDict) -> list[str]:
    """The flags that turn the default into the given configuration."""
    plain = configuration.flatten(default.get_config())
    flags = [f"--config={Path(default.__file__).resolve()}"]
    for path, value in configuration.flatten(config).items():
        if value != plain[path]:
            flags.append(f"--config.{path}={tuple(value) if isinstance(value, list) else value}")
    return flags


def tiny_config() -> ml_collections.ConfigDict:
    """The default with the smallest network."""
    config = default.get_config()
    config.model.backbone = "tiny"
    config.model.global_dim = 16
    config.model.attention_dim = 8
    config.model.local_dim = 8
    return config


def change_architecture(monkeypatch: pytest.MonkeyPatch, table: dict, name: str, spec: Any) -> None:
    """Makes a name mean another architecture, or a new one; what was traced of others is unused."""
    monkeypatch.setitem(table, name, spec)
    init = delg.init.__wrapped__
    again = jax.jit(lambda module, key: init(module, key), static_argnames="module")
    monkeypatch.setattr(delg, "init", again)


def random_variables(module: Delg, seed: int = 0) -> dict:
    """All variables of a `Delg`."""
    return fill(shapes(module), seed)


def fill(tree: dict, seed: int = 0) -> dict:
    """Random values for a tree of shapes, from NumPy: compiling the initialisers takes seconds."""
    shapes = traverse_util.flatten_dict(tree)
    rng = np.random.default_rng(seed)
    values = {path: _draw(path[-1], leaf.shape, rng) for path, leaf in sorted(shapes.items())}
    return traverse_util.unflatten_dict(values)


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name == "kernel":
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    elif name == "power":
        values = rng.uniform(2.0, 4.0, shape)
    elif name in ("scale", "var", "gamma"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * rng.normal(size=shape)
    return np.asarray(values, np.float32)
