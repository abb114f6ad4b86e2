"""Prepares a data set unless it is there already, in this process or on Apache Beam."""

import importlib.util
import shlex
import sys

import tensorflow_datasets as tfds

from delg_jax.data.once import prepare_once
from delg_jax.data.prepared.builder import ImageSetBuilder
from delg_jax.errors import UserError


def prepare(
    builder: ImageSetBuilder, root: str, max_skipped: int = 0, beam_options: str = ""
) -> ImageSetBuilder:
    """Writes the records of a builder; what is there already is kept.

    A preparation that is killed leaves nothing under the final name. The examples and their
    order do not depend on whether Beam is used.

    Args:
      builder: of the data set.
      root: folder of the published files; "" downloads them, where the builder can.
      max_skipped: bad images tolerated before the preparation ends in an error.
      beam_options: options of a Beam pipeline, for example `--runner=DirectRunner
        --direct_num_workers=8`; "" prepares in this process.

    Returns:
      The builder, prepared.

    Raises:
      UserError: if the published files are absent or damaged, or Beam is not installed.
    """
    if builder.data_path.exists():
        return builder
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a log every tick would be a line
    builder.max_skipped = max_skipped
    config = tfds.download.DownloadConfig(manual_dir=root or None)
    if beam_options:
        config = config.replace(**_beam(beam_options))
    prepare_once(builder, download_config=config)
    return builder


def _beam(options: str) -> dict:
    if importlib.util.find_spec("apache_beam") is None:
        rule = "needs Apache Beam, which the extra `beam` of delg_jax installs"
        raise UserError("config.data.beam_options", options, rule)
    from apache_beam.options import pipeline_options

    parsed = pipeline_options.PipelineOptions(shlex.split(options))
    runner = parsed.view_as(pipeline_options.StandardOptions).runner
    return {"beam_options": parsed, "beam_runner": runner or "DirectRunner"}
