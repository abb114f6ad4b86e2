"""The network of an experiment, and the stores that it fills."""

import importlib
import importlib.util
import pathlib

import ml_collections

from delg_jax.data import ImageSource, RetrievalData
from delg_jax.errors import UserError
from delg_jax.features.extraction import extract_to_store
from delg_jax.features.extractor import Extractor, check, deciding
from delg_jax.features.parts import Part
from delg_jax.features.pca_sample import fit_pca, sample_of
from delg_jax.features.store import FeatureStore
from delg_jax.features.threshold import attention_threshold
from delg_jax.models.delg import SOURCES
from delg_jax.models.variables import digest
from delg_jax.training import processes
from delg_jax.training.checkpoints import load_model

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
        with processes.first_before_others(f"{store.folder}: projection"):
            kept, fitted_on = store.read_pca(), []
            if self.extractor.pca is None:
                self.extractor.pca = kept
            if self.extractor.pca is None:
                self.extractor.pca = fit_pca(source, self.extractor, self._config.data)
                sample = sample_of(source, self.extractor.settings)
                fitted_on = [source.names[index] for index in sample]
            if self.extractor.pca is not None and kept is None:
                store.write_pca(self.extractor.pca, fitted_on)
