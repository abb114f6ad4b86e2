"""What the TFDS builders of published image sets have in common, and preparing with them.

They write array_record shard by shard, so that the order is that of the lists, memory holds one
shard at a time, and the same shards are written by this process or by Apache Beam. (TFDS's other
kind of builder spills large sets to disk through TensorFlow, which this package does without.)
"""

import abc
import contextlib
import dataclasses
import importlib.util
import io
import logging
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delg_jax import locks
from delg_jax.configuration import local_path
from delg_jax.data import skips
from delg_jax.data.folder import labelled
from delg_jax.data.tfds_builders import manifest, records, relabelling
from delg_jax.data.tfds_builders.manifest import ImageFile, Manifest, Source, inside
from delg_jax.data.tfds_builders.records import Item, Limits, Shard, in_shards
from delg_jax.errors import UserError
from delg_jax.file_names import to_text

_NAMING = frozenset(field.name for field in dataclasses.fields(tfds.core.BuilderConfig))

Groups = Sequence[Callable[[], Iterable[Item]]]  # one for each shard


@dataclasses.dataclass
class ImageSetConfig(tfds.core.BuilderConfig):
    """How a data set is prepared.

    Attributes:
      name: of the variant, and of its folder.
      split_seed: of the draw of validation images, where the set has no split of its own.
      validation_share: share of each class that is drawn, from 0 to below 1.
      min_side: pixels; an image with a smaller side is skipped.
      max_pixels: a larger image is skipped before it is decoded.
    """

    name: str = "default"
    split_seed: int = 0
    validation_share: float = 0.2
    min_side: int = 16
    max_pixels: int = 100_000_000


class ImageSetBuilder(tfds.core.ShardBasedBuilder):
    """Base of the builders; each says which items its splits have.

    Beside the records lie `<split>.csv` with name, label, height, width and digest of each record
    in order, and what the data were prepared of (`manifest`). `skipped.csv` lies one folder up,
    where it stays if the preparation ends in an error.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [ImageSetConfig()]
    HOMEPAGE = ""
    max_skipped = 0  # images that may be skipped before a preparation ends in an error
    MAY_BE_EMPTY: tuple[str, ...] = ()  # splits that need no images

    @abc.abstractmethod
    def find(self, root: pathlib.Path) -> Source:
        """The published files in a folder; a UserError if they are not all there."""

    def _fetch(self, dl_manager: tfds.download.DownloadManager) -> Source:
        """The published files, downloaded; a UserError for a data set that is not."""
        del dl_manager
        raise UserError("config.data.root", "", "must be the folder with the files of the data set")

    @abc.abstractmethod
    def _groups(self, source: Source) -> dict[str, Groups]:
        """Items of each shard of each split; the largest split comes last.

        With Beam, TFDS runs the shards of a split again with those of the next.
        """

    def settings(self) -> dict[str, Any]:
        """What decides the records beside the published files."""
        config = dataclasses.asdict(self.builder_config)
        return {name: config[name] for name in sorted(config) if name not in _NAMING}

    def _features(self) -> dict[str, Any]:
        """Features beside name and label."""
        return {"image": tfds.features.Image(shape=(None, None, 3))}

    def _absent(self, found: dict[str, set[str]]) -> dict[str, str]:
        """Reasons by name of images that no shard came across; `found` is names by split."""
        del found
        return {}

    def _report(self, skipped: dict[str, str]) -> None:
        """Lists what was skipped; raises a UserError if it is too much."""
        skips.report(pathlib.Path(self.data_path).parent, skipped, self.max_skipped)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"name": tfds.features.Text(), "label": np.int64, **self._features()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict(features),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Shard]]:
        config = self.builder_config
        limits = Limits(config.min_side, config.max_pixels, self.max_skipped)
        folder = pathlib.Path(self.data_path)
        root = _raw_folder(dl_manager)
        source = self._fetch(dl_manager) if root is None else self.find(root)
        self._manifest = manifest.begin(source, self.settings())
        self._shards = {}
        for split, groups in self._groups(source).items():
            if not groups and split not in self.MAY_BE_EMPTY:
                rule = f"leaves the split {split} of {self.name} without images"
                raise UserError("data set", str(root or "download"), rule)
            self._shards[split] = [
                Shard(folder, split, number, group, limits, len(groups))
                for number, group in enumerate(groups)
            ]
        return {split: shards for split, shards in self._shards.items() if shards}

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        folder = pathlib.Path(self.data_path)
        try:
            super()._download_and_prepare(dl_manager, download_config)
        except Exception:
            self._report(records.take_skipped(folder))  # if they are the cause, they are the error
            raise
        found = {split: records.merge(folder, split, len(s)) for split, s in self._shards.items()}
        skipped = {**self._absent(found), **records.take_skipped(folder)}
        self._report(skipped)
        manifest.write(folder, self._manifest, records.take_files(folder), skipped)


def _raw_folder(dl_manager: tfds.download.DownloadManager) -> pathlib.Path | None:
    """The folder with the published files that the user named, or None."""
    try:
        return pathlib.Path(dl_manager.manual_dir)
    except AssertionError:  # how TFDS says that there is none
        return None


class LabelledBuilder(ImageSetBuilder):
    """Splits the images of each class and leaves `relabelling.csv` beside the records."""

    MAY_BE_EMPTY = ("validation",)  # with validation_share=0, or where classes have one image

    def _relabel(self, images: Iterable[tuple[str, str]]) -> list[relabelling.Labelled]:
        """Splits images, given by name and class, and writes `relabelling.csv`."""
        config = self.builder_config
        labelled = relabelling.relabel(images, config.split_seed, config.validation_share)
        relabelling.write(pathlib.Path(self.data_path), labelled)
        return labelled

    def _file_groups(
        self, labelled: list[relabelling.Labelled], image_file: Callable[[str], ImageFile]
    ) -> dict[str, Groups]:
        """Shards of images that are files, which `image_file` gives by name."""
        groups: dict[str, Groups] = {}
        for name in reversed(relabelling.SPLITS):
            images = [image for image in labelled if image.split == name]
            groups[name] = in_shards(
                Item(image.name, {"image": image_file(image.name)}, image.label) for image in images
            )
        return groups


class ImageFolder(LabelledBuilder):
    """One's own images, `ROOT/<class>/*.jpg`, split as Google Landmarks is.

    The splits are `validation`, a fifth of each class by default, and `train`. Labels are 0 to
    C - 1; `relabelling.csv` beside the records has the path, the class, the label and the split of
    each image.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder must hold a folder of images for each class."

    def find(self, root: pathlib.Path) -> Source:
        """The images, which no list names."""
        images = [name for name, _ in labelled(root)]
        if not images:
            raise UserError("config.data.root", str(root), "must have folders of images")
        return Source(root, images=tuple(images))

    def _groups(self, source: Source) -> dict[str, Groups]:
        split = self._relabel((name, name.split("/")[0]) for name in source.images or ())
        return self._file_groups(split, lambda name: ImageFile(source.folder, "", name, inside))


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


def tfds_folder(named: str) -> str | None:
    """Returns the folder of prepared data as TFDS takes it.

    Args:
      named: value of `config.data.tfds_dir`; "" for the default of TFDS.

    Returns:
      The folder; None for the default.

    Raises:
      UserError: if it is of another file system, or "" without a home folder, where the default is.
    """
    if not named and not os.environ.get("TFDS_DATA_DIR"):
        local_path("config.data.tfds_dir", "~/tensorflow_datasets")  # the default of TFDS
    return local_path("config.data.tfds_dir", named) or None  # TFDS would take gs://


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
