"""The network of an experiment with its weights and its projection, ready to extract."""

import dataclasses
import logging
import pathlib

import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError, require_choice
from delg_jax.features import pca
from delg_jax.features.extraction import Loader
from delg_jax.features.extractor import Extractor, feature_variables
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.features.storage.encodings import ENCODINGS, GLOBAL_DTYPES
from delg_jax.features.store import FeatureStore
from delg_jax.models.delg import SOURCES
from delg_jax.models.variables import digest
from delg_jax.progress import Progress
from delg_jax.training import trained_network
from delg_jax.training.trained_network import load_model

_LOG = logging.getLogger(__name__)

_EXECUTION = ("batch_pixels",)  # fields that change only speed and memory
_BITS = 8  # of a byte
_ATTENTION_QUANTILES = {0.5: "attention_p50", 0.75: "attention_p75"}


def network_sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that features depend on; the digest covers the weights."""
    model = (f"model.{name}" for name in config.model if name not in SOURCES)
    extract = (f"extract.{name}" for name in config.extract if name not in _EXECUTION)
    return (*model, "data.min_side", "data.max_pixels", *extract)


class Network:
    """The network of an experiment, ready to extract.

    Args:
      config: the whole tree.
      workdir: whose checkpoints are searched.

    Attributes:
      weights: digest of the variables that features depend on, with tau if it comes from training.
      extractor: runs the network.

    Raises:
      UserError: for a wrong configuration or weights that cannot be used.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
        check(config.extract)
        extract, data = config.extract, config.data
        self._limits = extract.max_size, data.min_side, data.max_pixels, extract.reduced_decode
        self._pca = extract.pca_images, extract.pca_dim, extract.pca_whitening
        _LOG.info("loading the network, %s", config.model.backbone)
        module, variables = load_model(config, workdir)
        self.weights = digest(feature_variables(variables))
        quantile = extract.attention_quantile
        threshold = attention_threshold(
            extract.attention_threshold, quantile, config.model.checkpoint, workdir
        )
        if quantile:
            self.weights += f", tau {threshold:.9g}"
        settings = ExtractionSettings.of(extract)
        settings = dataclasses.replace(settings, attention_threshold=threshold)
        self.extractor = Extractor(module, variables, settings)

    def set_projection(self, source: ImageSource, store: FeatureStore) -> None:
        """Gives the extractor the PCA projection that `config.extract.pca_dim` asks for.

        It is read from the store, or fitted on the images and stored. Once set, it is used for all
        stores that follow.

        Args:
          source: images of the store.
          store: open for writing.

        Raises:
          UserError: if the images have too few descriptors.
        """
        with distributed.first_before_others(f"{store.folder}: projection"):
            stored, fitted_on = store.read_pca(), []
            if self.extractor.pca is None:
                self.extractor.pca = stored
            if self.extractor.pca is None:
                images, dim, whitening = self._pca
                loader, sample = Loader(source, None, *self._limits), _sample(source, images)
                self.extractor.pca = fit_pca(loader, sample, self.extractor, dim, whitening)
                fitted_on = [source.names[index] for index in sample]
            if self.extractor.pca is not None and stored is None:
                store.write_pca(self.extractor.pca, fitted_on)


def fit_pca(
    loader: Loader, sample: np.ndarray, extractor: Extractor, dim: int, whitening: float
) -> pca.Pca | None:
    """Fits the projection of local descriptors, on some images at their own scale.

    Args:
      loader: of the database.
      sample: int [n], which images.
      extractor: without projection.
      dim: dimensions after projection; 0 for none.
      whitening: exponent of whitening, see `pca.fit`.

    Returns:
      The projection, or None if `dim` is 0 or the network has no local head.

    Raises:
      UserError: if the sample has too few descriptors.
    """
    if not dim or not extractor.module.local_head:
        return None
    single_scale = dataclasses.replace(
        extractor.settings, local_scales=(1.0,), global_scales=(1.0,)
    )
    sampler = Extractor(extractor.module, extractor.variables, single_scale)
    found = []
    with Progress("fit PCA", len(sample)) as progress:
        for index in sample:
            loaded, _ = loader.load(int(index))
            if not isinstance(loaded, str):
                local = sampler([loaded.image])[0].local
                assert local is not None  # the network has a local head
                found.append(local.descriptors[local.mask])
            progress.advance()
    descriptors = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
    if dim > min(descriptors.shape):
        rule = f"must not exceed the sample's {len(descriptors)} descriptors of "
        rule += f"{descriptors.shape[1]} dimensions"
        raise UserError("config.extract.pca_dim", dim, rule)
    return pca.fit(descriptors, dim, whitening)


def _sample(source: ImageSource, count: int) -> np.ndarray:
    """Indices of evenly spaced images, int [n] with n at most `count`."""
    return np.unique(np.linspace(0, len(source) - 1, count).astype(int))


def attention_threshold(
    threshold: float, quantile: float, checkpoint: str, workdir: pathlib.Path
) -> float:
    """Returns tau, the minimum attention of local features.

    Args:
      threshold: tau, if it is given.
      quantile: of the attention in training, to use instead; 0 for none.
      checkpoint: `config.model.checkpoint`.
      workdir: whose checkpoints are searched, as in `trained_network.load_model`.

    Returns:
      The threshold, or the quantile.

    Raises:
      UserError: if both are set, the quantile is not one of the known ones, or the network does
        not come from a checkpoint that stores its quantiles.
    """
    if not quantile:
        return float(threshold)
    if quantile not in _ATTENTION_QUANTILES:
        rule = "must be 0, 0.5 or 0.75"
        raise UserError("config.extract.attention_quantile", quantile, rule)
    if threshold:
        rule = "must be 0 if config.extract.attention_threshold is set"
        raise UserError("config.extract.attention_quantile", quantile, rule)
    found = trained_network.find_checkpoint(checkpoint, workdir)
    if found is None:
        rule = "needs a network from a checkpoint, which stores the attention in training"
        raise UserError("config.extract.attention_quantile", quantile, rule)
    folder, step = found
    chosen = folder if step is None else folder / str(step)
    return trained_network.attention_thresholds(chosen)[_ATTENTION_QUANTILES[quantile]]


def check(settings: ml_collections.ConfigDict) -> None:
    """Raises a UserError for invalid values in the `config.extract` tree."""
    require_choice("config.extract.dtype", settings.dtype, ("float32", "bfloat16"))
    require_choice("config.extract.scale_pooling", settings.scale_pooling, ("mean", "max"))
    require_choice("config.extract.local_encoding", settings.local_encoding, ENCODINGS)
    require_choice("config.extract.global_dtype", settings.global_dtype, GLOBAL_DTYPES)
    for field in ("gem_power", "relup"):
        if not settings[field] >= 0:  # also refuses NaN
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    if not 0 <= settings.regional <= 1:
        raise UserError("config.extract.regional", settings.regional, "must lie in [0, 1]")
    if not 0 <= settings.compression <= 19:
        rule = "must be a level from 0 to 19"
        raise UserError("config.extract.compression", settings.compression, rule)
    if settings.shape_step < 0 or settings.shape_step % 32:
        rule = "must be a multiple of 32 pixels, or 0 for a few canvases"
        raise UserError("config.extract.shape_step", settings.shape_step, rule)
    for field in ("max_features", "chunk_images", "pca_images"):
        if settings[field] < 1:
            raise UserError(f"config.extract.{field}", settings[field], "must be at least 1")
    for field in ("max_size", "pca_dim", "batch_pixels", "nms_radius"):
        if settings[field] < 0:
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    for field in ("local_scales", "global_scales"):
        positive = [isinstance(s, int | float) and s > 0 for s in settings[field]]
        if not positive or not all(positive):
            raise UserError(f"config.extract.{field}", settings[field], "must be positive numbers")


def local_dimension(config: ml_collections.ConfigDict) -> tuple[str, int]:
    """The field that determines D, and D; 0 if it depends on the network or on imported files."""
    extract, model = config.extract, config.model
    if is_imported(extract) or not model.local_head:
        return "", 0
    if extract.pca_dim:
        return "config.extract.pca_dim", extract.pca_dim
    if model.dim_reduction == "none":
        return "", 0
    return "config.model.local_dim", model.local_dim


def check_dimension(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a dimension that the encoding or the projection does not allow."""
    field, dimension = local_dimension(config)
    if config.extract.local_encoding == "sign" and dimension % _BITS:
        rule = f"must be a multiple of {_BITS}: config.extract.local_encoding = 'sign' packs bits"
        raise UserError(field, dimension, rule)
    if field == "config.extract.pca_dim" and config.model.dim_reduction != "none":
        most = config.model.local_dim
        if dimension > most:
            rule = (
                f"must be at most config.model.local_dim (={most}), the dimension before projection"
            )
            raise UserError(field, dimension, rule)
