"""Prepares a data set unless it is there already, in this process or on Apache Beam."""

import contextlib
import importlib.util
import io
import logging
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping

import tensorflow_datasets as tfds

from delg_jax import locks
from delg_jax.data import skips
from delg_jax.data.tfds_builders import manifest
from delg_jax.data.tfds_builders.builder import ImageSetBuilder
from delg_jax.data.tfds_builders.manifest import Manifest
from delg_jax.errors import UserError
from delg_jax.file_names import to_text

_LOG = logging.getLogger(__name__)


def prepare(
    builder: ImageSetBuilder,
    root: str,
    max_skipped: int = 0,
    beam_options: str = "",
    field: str = "config.data.root",
) -> ImageSetBuilder:
    """Writes the records of a builder; what is there already is compared with its source and kept.

    A preparation that is killed leaves nothing under the final name. Of several jobs one prepares,
    and the others wait for it. The examples and their order do not depend on whether Beam is used.

    Args:
      builder: of the data set.
      root: folder of the published files; "" uses what is prepared, whatever its source, or else
        downloads them, where the builder can.
      max_skipped: bad images tolerated before the preparation ends in an error.
      beam_options: options of a Beam pipeline, for example `--runner=DirectRunner
        --direct_num_workers=8`; "" prepares in this process.
      field: of the configuration that names `root`, for errors.

    Returns:
      The builder, prepared.

    Raises:
      UserError: if the published files are absent, damaged, or not those that the data were
        prepared of, too many images were skipped, or Beam is not installed.
    """
    if root and not pathlib.Path(root).is_dir():
        raise UserError(field, root, f"must be an existing folder{_or_empty(builder, field)}")
    if not builder.data_path.exists():
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()  # in a log every tick would be a line
        builder.max_skipped = max_skipped
        config = tfds.download.DownloadConfig(manual_dir=root or None)
        if beam_options:
            config = config.replace(**_beam(beam_options))
        folder = pathlib.Path(builder.data_path)
        with locks.after_others(folder) as locked:
            if locked:
                _delete_incomplete(folder)
            if not folder.exists():
                source = to_text(root) or "downloaded files"
                _LOG.info("preparing %s of %s", to_text(str(folder)), source)
            if prepare_once(builder, download_config=config):
                return builder
    _require_usable(builder, root, max_skipped, field)
    return builder


def _delete_incomplete(folder: pathlib.Path) -> None:
    """Deletes what killed preparations left; TFDS takes a new name for each."""
    for leftover in folder.parent.glob(f"incomplete.??????_{folder.name}"):
        _LOG.info("deleting %s of a preparation that was killed", to_text(str(leftover)))
        shutil.rmtree(leftover)


def is_prepared_of(builder: ImageSetBuilder, root: pathlib.Path) -> bool:
    """Whether a builder is prepared, and of exactly the files that a folder holds."""
    folder = pathlib.Path(builder.data_path)
    found = manifest.read(folder) if folder.is_dir() else None
    return found is not None and not _differences(builder, found, root)


def _require_usable(builder: ImageSetBuilder, root: str, max_skipped: int, field: str) -> None:
    """Refuses data that were prepared of other files, with other settings, or of too few images."""
    folder = pathlib.Path(builder.data_path)
    found = manifest.read(folder)
    if found is None:
        text = (
            "%s was prepared by an earlier version and cannot be compared with its source; delete"
        )
        _LOG.warning(text + " it to prepare it again", to_text(str(folder)))
        _require_few_skipped(folder, skips.read(folder.parent), max_skipped)
        return
    source = to_text(found.root) or "downloaded files"
    _LOG.info("%s was prepared of %s", to_text(str(folder)), source)
    if root:
        changes = _differences(builder, found, pathlib.Path(root))
        if changes:
            rule = (
                f"is not what {folder} was prepared of (then {found.root or 'downloaded files'}): "
            )
            rule += f"{'; '.join(changes)}; delete {folder} to prepare it again, or take another "
            raise UserError(field, root, f"{rule}config.data.tfds_dir{_or_empty(builder, field)}")
    _require_few_skipped(folder, found.skipped, max_skipped)


def _require_few_skipped(
    folder: pathlib.Path, skipped: Mapping[str, str], max_skipped: int
) -> None:
    if len(skipped) > max_skipped:
        name, reason = min(skipped.items())
        rule = f"{len(skipped)} images are left out of {folder}, first {name} ({reason}); allow "
        rule += "as many, or repair them and delete that folder to prepare it again"
        raise UserError("config.data.max_skipped", max_skipped, rule)


def _differences(builder: ImageSetBuilder, found: Manifest, root: pathlib.Path) -> list[str]:
    now = builder.settings()
    changes = [
        f"{name} is {now.get(name)!r}, not {found.settings.get(name)!r}"
        for name in sorted({*now, *found.settings})
        if now.get(name) != found.settings.get(name)
    ]
    folder = pathlib.Path(builder.data_path)
    return changes + manifest.differences(folder, found, builder.find(root))


def _or_empty(builder: ImageSetBuilder, field: str) -> str:
    """What else the user can do where data are prepared under a name that needs no folder."""
    if field != "config.data.root" or not builder.data_path.exists():
        return ""
    return f"; leave it empty to use {builder.data_path} as it is"


def _beam(options: str) -> dict:
    if importlib.util.find_spec("apache_beam") is None:
        rule = "needs Apache Beam, which the extra `beam` of delg_jax installs"
        raise UserError("config.data.beam_options", options, rule)
    from apache_beam.options import pipeline_options

    parsed = pipeline_options.PipelineOptions(shlex.split(options))
    runner = parsed.view_as(pipeline_options.StandardOptions).runner
    return {"beam_options": parsed, "beam_runner": runner or "DirectRunner"}


def prepare_once(builder: tfds.core.DatasetBuilder, **options: object) -> bool:
    """Prepares unless that is done; of several processes the first to finish counts.

    Args:
      builder: of data that do not depend on the process.
      **options: of `download_and_prepare`.

    Returns:
      Whether the data are those that this process prepared.
    """
    if not builder.data_path.exists():
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS says that it downloads
                builder.download_and_prepare(**options)
            return True
        except FileExistsError:  # TFDS renames a whole folder at the end, and another was faster
            pass
    builder.info.read_from_directory(builder.data_path)
    return False
