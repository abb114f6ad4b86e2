"""The network of an experiment, and the stores that it fills."""

import importlib
import importlib.util
import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax.data import RetrievalData, open_retrieval
from delg_jax.data.listing import open_images
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError
from delg_jax.features import pca
from delg_jax.features.extraction import Box, Loader, extract_to_store
from delg_jax.features.extractor import Extractor, check, deciding
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.selection import attention_threshold
from delg_jax.features.store import FeatureStore
from delg_jax.models.delg import SOURCES
from delg_jax.models.variables import digest
from delg_jax.progress import Progress
from delg_jax.training.trained_network import load_model

LISTED = "images"  # the part whose images are named on the command line


class Part(NamedTuple):
    """Where images come from, small enough to be sent to another machine.

    Attributes:
      config: the whole tree.
      name: `database`, `queries` or `images`, and of the store under `features/`.
      images: of the part `images`: a folder, glob, list file or tar.
    """

    config: ml_collections.ConfigDict
    name: str
    images: str = ""

    def open(self, data: RetrievalData | None = None) -> tuple[ImageSource, list[Box] | None]:
        """The images, and what each is cropped to.

        Args:
          data: the experiment's, if the caller has it.
        """
        if self.name == LISTED:
            return open_images(self.images), None
        data = data or open_retrieval(self.config.data)
        if self.name == "database":
            return data.database, None
        return data.queries, query_boxes(self.config, data)


def query_boxes(config: ml_collections.ConfigDict, data: RetrievalData) -> list[Box] | None:
    """What queries are cropped to, [x1, y1, x2, y2] in pixels; None if they are not."""
    if is_imported(config.extract) or not config.extract.crop_queries:
        return None
    return [tuple(entry["bbx"]) for entry in data.ground_truth]


def fit_pca(
    source: ImageSource, extractor: Extractor, data: ml_collections.ConfigDict
) -> pca.Pca | None:
    """Fits the projection that `config.extract.pca_dim` asks for, on evenly spaced images.

    Args:
      source: the database.
      extractor: without projection.
      data: the `config.data` tree.

    Returns:
      The projection, or None if `pca_dim` is 0.

    Raises:
      UserError: if the sample has too few descriptors.
    """
    settings = extractor.settings
    if not settings.pca_dim or not extractor.module.local_head:
        return None
    with settings.copy_and_resolve_references().unlocked() as single:
        single.local_scales = single.global_scales = (1.0,)
    sampler = Extractor(extractor.module, extractor.variables, single)
    loader = Loader(source, data, settings.max_size, None)
    chosen = sample_of(source, settings)
    found = []
    with Progress("fit PCA", len(chosen)) as progress:
        for index in chosen:
            loaded = loader(int(index))
            if not isinstance(loaded, str):
                local = sampler([loaded[0]])[0].local
                found.append(local.descriptors[local.mask])
            progress.advance()
    sample = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
    if settings.pca_dim > min(sample.shape):
        rule = f"must not exceed the sample's {len(sample)} descriptors of {sample.shape[1]}"
        raise UserError("config.extract.pca_dim", settings.pca_dim, rule)
    return pca.fit(sample, settings.pca_dim, settings.pca_whitening)


def sample_of(source: ImageSource, settings: ml_collections.ConfigDict) -> np.ndarray:
    """Indices int [n] of the images that decide the projection, evenly spaced.

    Args:
      source: the database.
      settings: the `config.extract` tree.
    """
    return np.unique(np.linspace(0, len(source) - 1, settings.pca_images).astype(int))


_EXECUTION = ("batch_pixels",)  # fields that change speed and memory alone


def network_sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that decide the features of an image; of weights, the digest does."""
    model = (f"model.{name}" for name in config.model if name not in SOURCES)
    extract = (f"extract.{name}" for name in config.extract if name not in _EXECUTION)
    return (*model, "data.min_side", "data.max_pixels", *extract)


class Network:
    """The network of an experiment, ready to extract.

    Args:
      config: the whole tree.
      workdir: whose checkpoints are looked into.
      runner: options of an Apache Beam pipeline that extracts; empty for the processes of this job.

    Attributes:
      weights: digest of the variables that decide features, with tau if training decided it.
      extractor: runs it.

    Raises:
      UserError: for a wrong configuration, weights that cannot be used, or if there is no Beam.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: pathlib.Path, runner: str = ""
    ) -> None:
        check(config.extract)
        if runner and importlib.util.find_spec("apache_beam") is None:
            rule = "needs Apache Beam, which the extra `beam` of delg_jax installs"
            raise UserError("--runner", runner, rule)
        self._config, self._workdir, self._runner = config, workdir, runner
        module, variables = load_model(config, workdir)
        self.weights = digest(deciding(variables))
        with config.extract.copy_and_resolve_references().unlocked() as settings:
            settings.attention_threshold = attention_threshold(config, workdir)
        if settings.attention_quantile:
            self.weights += f", tau {settings.attention_threshold:.9g}"
        self.extractor = Extractor(module, variables, settings)

    def fill(
        self,
        part: Part,
        source: ImageSource,
        store: FeatureStore,
        data: RetrievalData | None = None,
    ) -> FeatureStore:
        """Extracts what is missing in the store of a part.

        The first store decides the projection of local descriptors; the others take it over.

        Args:
          part: of the experiment.
          source: its images.
          store: claimed.
          data: the experiment's, if the part belongs to it.

        Returns:
          The store, whole.
        """
        self._take_projection(source, store)
        if self._runner:
            beam = importlib.import_module("delg_jax.features.beam_extraction")
            return beam.extract_with_beam(part, self._workdir, store, self._runner)
        boxes = part.open(data)[1] if data else None
        extract_to_store(source, self.extractor, store, self._config.data, boxes)
        return store

    def _take_projection(self, source: ImageSource, store: FeatureStore) -> None:
        with distributed.first_before_others(f"{store.folder}: projection"):
            kept, fitted_on = store.read_pca(), []
            if self.extractor.pca is None:
                self.extractor.pca = kept
            if self.extractor.pca is None:
                self.extractor.pca = fit_pca(source, self.extractor, self._config.data)
                sample = sample_of(source, self.extractor.settings)
                fitted_on = [source.names[index] for index in sample]
            if self.extractor.pca is not None and kept is None:
                store.write_pca(self.extractor.pca, fitted_on)
