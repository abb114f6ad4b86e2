"""Extraction on Apache Beam: every worker writes its own chunks into the shared store."""

import contextlib
import importlib.util
import io
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

from delg_jax.data.images import worker_count
from delg_jax.errors import UserError
from delg_jax.features.extraction import Loader, extract_rows
from delg_jax.features.image_sets import ImageSet
from delg_jax.features.network import Network
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import group_by_chunk, missing_rows


def require_beam(runner: str) -> None:
    """Raises a UserError if a runner is given and Apache Beam is not installed."""
    if runner and importlib.util.find_spec("apache_beam") is None:
        rule = "needs Apache Beam, which the extra `beam` of delg_jax installs"
        raise UserError("--runner", runner, rule)


def extract_with_beam(
    image_set: ImageSet, workdir: pathlib.Path, store: FeatureStore, runner: str
) -> None:
    """Extracts the images whose rows are missing in a store.

    Args:
      image_set: the images of the store.
      workdir: of the experiment; workers must see it, and the images, under the same paths.
      store: open for writing, with its projection; whole afterwards.
      runner: options of the pipeline, as "DirectRunner --direct_num_workers=4".

    Raises:
      UserError: for options that Beam does not accept, or if more than `config.data.max_skipped`
        images were skipped.
    """
    import apache_beam as beam

    pipeline = _pipeline(runner)
    extraction = _extraction(image_set, str(workdir.resolve()), str(store.folder.resolve()))
    max_skipped = image_set.config.data.max_skipped
    with missing_rows(store, f"extract {store.folder.name}", max_skipped) as (runs, advance):
        if runs:
            chunks = [[(r.start, r.stop) for r in chunk] for chunk in group_by_chunk(store, runs)]
            with pipeline:
                _ = (
                    pipeline
                    | "Chunks" >> beam.Create(chunks)
                    | "Spread" >> beam.Reshuffle()
                    | "Extract" >> beam.ParDo(extraction)
                )
            advance(sum(map(len, runs)))


def _pipeline(runner: str) -> Any:
    """A pipeline with these options; a UserError instead of Beam's usage page and exit."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            options = PipelineOptions(shlex.split(f"--runner={runner}"))
            options.get_all_options()  # parses the values
            return beam.Pipeline(options=options)
    except (SystemExit, ValueError) as error:
        reason = (messages.getvalue() or str(error)).strip().splitlines()[-1]
        raise UserError("--runner", runner, f"must be options of a pipeline: {reason}") from error


def _extraction(image_set: ImageSet, workdir: str, folder: str) -> Any:
    """The work of a Beam worker; the class can exist only where Beam is installed."""
    import apache_beam as beam

    class Extraction(beam.DoFn):
        """Extracts runs of rows; opens images, network and store once in each worker."""

        def setup(self) -> None:
            """Opens images, network and store."""
            config = image_set.config
            source, boxes = image_set.open()
            self._loader = Loader(
                source,
                boxes,
                config.extract.max_size,
                config.data.min_side,
                config.data.max_pixels,
                config.extract.reduced_decode,
            )
            self._store = FeatureStore(pathlib.Path(folder), whole=False)
            self._extractor = Network(config, pathlib.Path(workdir)).extractor
            self._extractor.pca = self._store.read_pca()
            self._workers = worker_count(config.data.workers)

        def process(self, chunk: list[tuple[int, int]]) -> Iterator[None]:
            """Extracts and writes the missing rows of one chunk."""
            runs = [range(*run) for run in chunk]
            store, workers = self._store, self._workers
            extract_rows(runs, self._loader, self._extractor, store, workers, lambda count: None)
            yield from ()

    return Extraction()
