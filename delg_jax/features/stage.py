"""The extraction stage: database and queries of an experiment, into its workdir."""

import pathlib
from typing import Any, NamedTuple

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.data import RetrievalData, open_retrieval
from delg_jax.errors import UserError, require_choice
from delg_jax.features.extraction import extract_to_store
from delg_jax.features.extractor import Extractor
from delg_jax.features.pca_sample import fit_pca
from delg_jax.features.store import FeatureStore
from delg_jax.models.delg import SOURCES
from delg_jax.models.variables import digest
from delg_jax.training.checkpoints import load_model

_DATA_FIELDS = ("name", "root", "ground_truth", "embedded", "min_side", "max_pixels")


class Extracted(NamedTuple):
    """What the stage leaves.

    Attributes:
      data: the images and the ground truth.
      database: features of the N database images.
      queries: features of the Q queries.
      weights: digest of the network's variables.
    """

    data: RetrievalData
    database: FeatureStore
    queries: FeatureStore
    weights: str


def sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that decide features; of weights, the digest decides."""
    model = tuple(f"model.{name}" for name in config.model if name not in SOURCES)
    return (*model, *(f"data.{name}" for name in _DATA_FIELDS), "extract")


def extract(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> Extracted:
    """Extracts what is missing of the database and the queries.

    Args:
      config: the whole tree.
      workdir: gets `features/database` and `features/queries`.
      overwrite: whether features of another configuration are deleted instead of refused.

    Returns:
      The stores, whole.

    Raises:
      UserError: for a wrong configuration, or data or weights that cannot be used.
    """
    root = pathlib.Path(workdir)
    _check(config.extract)
    data = open_retrieval(config.data)
    module, variables = load_model(config, root)
    weights = digest(_deciding(variables))
    extractor = Extractor(module, variables, config.extract)
    stores = []
    for name, source in (("database", data.database), ("queries", data.queries)):
        folder = root / "features" / name
        artefacts.claim(folder, config, sections(config), overwrite, {"weights": weights})
        store = FeatureStore(folder, list(source.names), config.extract.chunk_images)
        if not stores:
            extractor.pca = store.read_pca()
            if extractor.pca is None:
                extractor.pca = fit_pca(source, extractor, config.data)
                if extractor.pca is not None:
                    store.write_pca(extractor.pca)
        boxes = None
        if name == "queries" and config.extract.crop_queries:
            boxes = [tuple(entry["bbx"]) for entry in data.ground_truth]
        stores.append(extract_to_store(source, extractor, store, config.data, boxes))
    return Extracted(data, *stores, weights)


def _deciding(variables: Any) -> Any:
    """Variables that features depend on: all but the classifiers, which only training uses."""
    params = {n: v for n, v in variables["params"].items() if not n.endswith("_classifier")}
    return {**variables, "params": params}


def _check(settings: ml_collections.ConfigDict) -> None:
    require_choice("config.extract.dtype", settings.dtype, ("float32", "bfloat16"))
    require_choice("config.extract.local_dtype", settings.local_dtype, ("float32", "float16"))
    if settings.shape_step < 32 or settings.shape_step % 32:
        rule = "must be a positive multiple of 32 pixels"
        raise UserError("config.extract.shape_step", settings.shape_step, rule)
    for field in ("max_features", "chunk_images", "batch_pixels", "pca_images"):
        if settings[field] < 1:
            raise UserError(f"config.extract.{field}", settings[field], "must be at least 1")
    for field in ("max_size", "pca_dim"):
        if settings[field] < 0:
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    for field in ("local_scales", "global_scales"):
        positive = [isinstance(s, int | float) and s > 0 for s in settings[field]]
        if not positive or not all(positive):
            raise UserError(f"config.extract.{field}", settings[field], "must be positive numbers")
