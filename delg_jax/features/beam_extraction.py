"""Extraction on Apache Beam: every worker writes chunks of its own into the shared store."""

import contextlib
import io
import pathlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from delg_jax.errors import UserError
from delg_jax.features.extraction import RunExtractor
from delg_jax.features.network import Network, Part
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import by_chunk, fill


def extract_with_beam(
    part: Part, workdir: pathlib.Path, store: FeatureStore, runner: str
) -> FeatureStore:
    """Fills what is missing in a store.

    Args:
      part: of the experiment.
      workdir: of the experiment; workers must see it, and the images, under the same paths.
      store: claimed, with its projection.
      runner: options of the pipeline, as "DirectRunner --direct_num_workers=4".

    Returns:
      The store, whole.

    Raises:
      UserError: for options that Beam does not take, or if more than `config.data.max_skipped`
        images could not be used.
    """
    import apache_beam as beam

    pipeline = _pipeline(runner)
    extraction = _extraction(part, str(workdir.resolve()), str(store.folder.resolve()))

    def work(runs: Sequence[range], advance: Callable[..., None]) -> None:
        """Runs the pipeline over the missing rows."""
        chunks = [[(run.start, run.stop) for run in chunk] for chunk in by_chunk(store, runs)]
        with pipeline:
            _ = (
                pipeline
                | "Chunks" >> beam.Create(chunks)
                | "Spread" >> beam.Reshuffle()
                | "Extract" >> beam.ParDo(extraction)
            )
        advance(sum(map(len, runs)))

    return fill(store, work, f"extract {store.folder.name}", part.config.data.max_skipped)


def _pipeline(runner: str) -> Any:
    """A pipeline of these options; Beam's own refusal is a page long and ends the program."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions(shlex.split(f"--runner={runner}"))
            options.get_all_options()  # what they say is looked at only now
            return beam.Pipeline(options=options)
    except (SystemExit, ValueError) as error:
        reason = (said.getvalue() or str(error)).strip().splitlines()[-1]
        raise UserError("--runner", runner, f"must be options of a pipeline: {reason}") from error


def _extraction(part: Part, workdir: str, folder: str) -> Any:
    """What a worker does; the class exists only where Beam is installed."""
    import apache_beam as beam

    class Extraction(beam.DoFn):
        """Writes runs of rows; opens images, network and store once in each worker."""

        def setup(self) -> None:
            """Opens what the worker needs."""
            source, boxes = part.open()
            store = FeatureStore(pathlib.Path(folder), whole=False)
            extractor = Network(part.config, pathlib.Path(workdir)).extractor
            extractor.pca = store.read_pca()
            self._runs = RunExtractor(source, extractor, store, part.config.data, boxes)

        def process(self, chunk: list[tuple[int, int]]) -> Iterator[None]:
            """Extracts and writes what is missing of one chunk."""
            self._runs([range(*run) for run in chunk], lambda _: None)
            yield from ()

    return Extraction()
