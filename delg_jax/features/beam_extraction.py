"""Extraction on Apache Beam: every worker writes chunks of its own into the shared store."""

import pathlib
import shlex
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from delg_jax.features.extraction import RunExtractor
from delg_jax.features.filling import fill
from delg_jax.features.network import Network
from delg_jax.features.parts import Part
from delg_jax.features.store import FeatureStore


def extract_with_beam(
    part: Part, workdir: pathlib.Path, store: FeatureStore, runner: str
) -> FeatureStore:
    """Fills what is missing in a store.

    Args:
      part: of the experiment.
      workdir: of the experiment; workers must see it, and the images, under the same paths.
      store: claimed, with its projection.
      runner: options of the pipeline, as "--runner=DirectRunner --direct_num_workers=4".

    Returns:
      The store, whole.

    Raises:
      UserError: if more than `config.data.max_skipped` images could not be used.
    """
    options = PipelineOptions(shlex.split(runner))

    def work(runs: Sequence[range], advance: Callable[..., None]) -> None:
        """Runs a pipeline over the missing rows."""
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "Runs" >> beam.Create([(run.start, run.stop) for run in runs])
                | "Spread" >> beam.Reshuffle()
                | "Extract" >> beam.ParDo(_Extract(part, str(workdir.resolve()), str(store.folder)))
            )
        advance(sum(map(len, runs)))

    return fill(store, work, f"extract {store.folder.name}", part.config.data.max_skipped)


class _Extract(beam.DoFn):
    """Writes runs of rows; opens images, network and store once in each worker."""

    def __init__(self, part: Part, workdir: str, folder: str) -> None:
        self._part, self._workdir, self._folder = part, workdir, folder
        self._runs: RunExtractor | None = None

    def setup(self) -> None:
        """Opens what the worker needs."""
        config = self._part.config
        source, boxes = self._part.open()
        store = FeatureStore(pathlib.Path(self._folder), whole=False)
        extractor = Network(config, pathlib.Path(self._workdir)).extractor
        extractor.pca = store.read_pca()
        self._runs = RunExtractor(source, extractor, store, config.data, boxes)

    def process(self, run: tuple[int, int]) -> Iterator[None]:
        """Extracts and writes one run."""
        self._runs([range(*run)], lambda _: None)
        yield from ()
