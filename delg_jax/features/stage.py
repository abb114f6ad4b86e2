"""The extraction stage: database and queries of an experiment, into its workdir."""

import pathlib
from typing import NamedTuple

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.data import ImageSource, RetrievalData, open_retrieval
from delg_jax.features.extraction import Box, extract_to_store
from delg_jax.features.extractor import Extractor, check, deciding
from delg_jax.features.formats.imported import DECIDING_FIELDS, ImportedFeatures, is_imported
from delg_jax.features.pca_sample import fit_pca
from delg_jax.features.store import FeatureStore
from delg_jax.models.delg import SOURCES
from delg_jax.models.variables import digest
from delg_jax.training.checkpoints import load_model

# Which images there are
_LISTING_FIELDS = ("name", "root", "ground_truth", "distractors", "embedded")
_DATA_FIELDS = (*_LISTING_FIELDS, "min_side", "max_pixels")


class Extracted(NamedTuple):
    """What the stage leaves.

    Attributes:
      data: the images and the ground truth.
      database: features of the N database images.
      queries: features of the Q queries.
      weights: digest of the network's variables, or of the files that features came from.
    """

    data: RetrievalData
    database: FeatureStore
    queries: FeatureStore
    weights: str


def sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that decide features; of weights and files, the digest decides."""
    if is_imported(config.extract):
        listing = (f"data.{name}" for name in _LISTING_FIELDS)
        return (*listing, *(f"extract.{name}" for name in DECIDING_FIELDS))
    model = tuple(f"model.{name}" for name in config.model if name not in SOURCES)
    return (*model, *(f"data.{name}" for name in _DATA_FIELDS), "extract")


def has_global(config: ml_collections.ConfigDict) -> bool:
    """Whether the experiment has global descriptors: computed ones, or imported."""
    return bool(config.extract.imported_global) or not is_imported(config.extract)


def has_local(config: ml_collections.ConfigDict) -> bool:
    """Whether the experiment has local features: of a network with a local head, or imported."""
    if is_imported(config.extract):
        return bool(config.extract.imported_local)
    return config.model.local_head


def query_boxes(config: ml_collections.ConfigDict, data: RetrievalData) -> list[Box] | None:
    """What queries are cropped to, [x1, y1, x2, y2] in pixels; None if they are not."""
    if is_imported(config.extract) or not config.extract.crop_queries:
        return None
    return [tuple(entry["bbx"]) for entry in data.ground_truth]


def extract(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> Extracted:
    """Extracts what is missing of the database and the queries, or imports it.

    Args:
      config: the whole tree.
      workdir: gets `features/database` and `features/queries`.
      overwrite: whether features of another configuration are deleted instead of refused.

    Returns:
      The stores, whole.

    Raises:
      UserError: for a wrong configuration, or data, weights or files that cannot be used.
    """
    root = pathlib.Path(workdir)
    check(config.extract)
    data = open_retrieval(config.data)
    if is_imported(config.extract):
        return _import(config, root, data, overwrite)
    module, variables = load_model(config, root)
    weights = digest(deciding(variables))
    extractor = Extractor(module, variables, config.extract)
    stores = []
    for name, source in (("database", data.database), ("queries", data.queries)):
        store = _claim_store(config, root, name, source, weights, overwrite)
        if not stores:
            extractor.pca = store.read_pca()
            if extractor.pca is None:
                extractor.pca = fit_pca(source, extractor, config.data)
                if extractor.pca is not None:
                    store.write_pca(extractor.pca)
        boxes = query_boxes(config, data) if name == "queries" else None
        stores.append(extract_to_store(source, extractor, store, config.data, boxes))
    return Extracted(data, *stores, weights)


def _import(
    config: ml_collections.ConfigDict, root: pathlib.Path, data: RetrievalData, overwrite: bool
) -> Extracted:
    sources = {"database": data.database, "queries": data.queries}
    names = {name: source.names for name, source in sources.items()}
    files = ImportedFeatures(config.extract, names)
    identity = files.digest()
    stores = []
    for name, source in sources.items():
        store = _claim_store(config, root, name, source, identity, overwrite)
        stores.append(files.fill(name, store, config.data.max_skipped))
    return Extracted(data, *stores, identity)


def _claim_store(
    config: ml_collections.ConfigDict,
    root: pathlib.Path,
    name: str,
    source: ImageSource,
    weights: str,
    overwrite: bool,
) -> FeatureStore:
    folder = root / "features" / name
    artefacts.claim(folder, config, sections(config), overwrite, {"weights": weights})
    return FeatureStore(folder, list(source.names), config.extract.chunk_images)
