"""The published data sets as training and retrieval data, prepared first if necessary."""

import dataclasses
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delg_jax import file_names, system_errors
from delg_jax.data import ground_truth
from delg_jax.data.folder import existing_root
from delg_jax.data.skips import SkipLog
from delg_jax.data.sources import (
    DataSettings,
    JoinedSource,
    Landmarks,
    RetrievalData,
    TrainingData,
)
from delg_jax.data.tfds_builders import gldv2_files, records, relabelling
from delg_jax.data.tfds_builders.builder import (
    ImageFolder,
    ImageSetBuilder,
    ImageSetConfig,
    is_prepared_of,
    prepare,
    tfds_folder,
)
from delg_jax.data.tfds_builders.google_landmarks import (
    GoogleLandmarksV1,
    GoogleLandmarksV2,
    GoogleLandmarksV2Config,
)
from delg_jax.data.tfds_builders.revisited import (
    COPY,
    RevisitedDistractors,
    RevisitedOxford,
    RevisitedParis,
)
from delg_jax.errors import UserError, require_choice
from delg_jax.file_stamps import digest_of_bytes, stamp_of_all

# Published usage of the queries, by value of `config.data.ground_truth`
USAGES = {"": "Private", "private": "Private", "public": "Public"}
_LONGEST_REASON = 200  # characters
_PATH_DIGEST = 8  # hexadecimal digits
_SHARED = ("split_seed", "validation_share", "min_side", "max_pixels")  # these decide the records
_REVISITED = {"revisited_oxford": RevisitedOxford, "revisited_paris": RevisitedParis}

_LOG = logging.getLogger(__name__)


class PreparedSource:
    """Images of a split, read one by one; it can be pickled.

    Args:
      builder: a prepared `ImageSetBuilder` with a feature `image`.
      split: name of the split.
      only: names of the images wanted, in that order; None for all.

    Attributes:
      names: of the N images.
      labels: int64 [N], -1 where there is none.
      sizes: int64 [N, 2], height and width in pixels as stored, EXIF orientation applied.
      digests: of the encoded bytes of each; "" where an earlier version prepared the data.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, only: Sequence[str] | None = None
    ) -> None:
        listed = records.read(pathlib.Path(builder.data_path), split)
        self._records = ()
        if listed.names:  # TFDS has no split without records
            self._records = builder.as_data_source(
                split, decoders={"image": tfds.decode.SkipDecoding()}
            )
        positions = np.arange(len(listed.names))
        if only is not None:
            place = {name: position for position, name in enumerate(listed.names)}
            positions = np.asarray([place[name] for name in only], np.int64)
        self._positions = positions
        features = builder.info.features.values()
        self._has_one_image = sum(isinstance(one, tfds.features.Image) for one in features) == 1
        self._stamp = stamp_of_all(pathlib.Path(builder.data_path).glob(f"*-{split}.*"))
        self.names = [listed.names[position] for position in positions]
        self.digests = [listed.digests[position] for position in positions]
        self.labels, self.sizes = listed.labels[positions], listed.sizes[positions]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Returns the encoded bytes of the image with an index from 0 to N - 1.

        Raises:
          OSError: if the record is damaged.
        """
        try:
            data: bytes = self._records[int(self._positions[index])]["image"]
        except Exception as error:  # on damaged records, the library can raise anything
            system_errors.reraise(error)
            text = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            raise OSError(f"its record is damaged: {text}") from error
        expected = self.digests[index] if self._has_one_image else ""
        if expected and digest_of_bytes(data) != expected:
            raise OSError("its record is damaged: the bytes are not those that were prepared")
        return data

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Size and times of the files of the split, int64 [n, 3], the same for all images."""
        return np.tile(self._stamp, (len(indices), 1))


def training(data: DataSettings) -> TrainingData:
    """Opens `gldv1`, `gldv2`, `gldv2_clean` or `image_folder`.

    Args:
      data: which data set it is. A `root` that is named must be what the data in `tfds_dir` were
        prepared of; with "" they are used as they are.

    Returns:
      TrainingData; its sources are `PreparedSource`.

    Raises:
      UserError: if the data set cannot be prepared, or was prepared of other files.
    """
    if data.name == "gldv1":
        builder = _prepared(GoogleLandmarksV1, data, "default")
    elif data.name == "image_folder":
        builder = _prepared(ImageFolder, data, _folder_name(data))
    else:
        builder = _landmarks(data, _training_part(data.name))
    path = pathlib.Path(builder.data_path) / relabelling.FILE
    return TrainingData(
        train=PreparedSource(builder, "train"),
        validation=PreparedSource(builder, "validation"),
        classes=relabelling.classes(relabelling.read(path)),
    )


def retrieval(data: DataSettings) -> RetrievalData:
    """Opens `revisited_oxford` or `revisited_paris`, or the test queries of Google Landmarks v2.

    They are searched in the index (`gldv2`), or to be recognised in the training images
    (`gldv2_recognition`) or the cleaned ones (`gldv2_clean_recognition`).

    Args:
      data: which data set it is. A `root` that is named must be what the data in `tfds_dir` were
        prepared of; with "" they are used as they are.

    Returns:
      RetrievalData; its sources are `PreparedSource`.

    Raises:
      UserError: if the data set cannot be prepared.
    """
    if data.name.startswith("gldv2"):
        return _landmark_queries(data)
    builder = _prepared(_REVISITED[data.name], data, "default")
    truth = ground_truth.read(pathlib.Path(builder.data_path) / COPY)["gnd"]
    database, queries = (PreparedSource(builder, split) for split in ("database", "query"))
    return RetrievalData(database, queries, truth)


def with_distractors(found: RetrievalData, data: DataSettings) -> RetrievalData:
    """Appends the images of `config.data.distractors` to a database, negatives for all queries.

    Args:
      found: what to search in; its ground truth stays as it is.
      data: which data set it is.

    Returns:
      RetrievalData.

    Raises:
      UserError: if the distractors cannot be prepared, or are named as database images are, or
        if queries are to be recognised.
    """
    if found.landmarks is not None:
        rule = "must be empty: nobody knows the landmarks of distractors"
        raise UserError("config.data.distractors", data.distractors, rule)
    builder = _prepared(RevisitedDistractors, data, "default", "distractors")
    distractors = PreparedSource(builder, "database")
    same = set(found.database.names) & set(distractors.names)
    if same:
        rule = f"has {len(same)} names of the database, first {min(same)}"
        raise UserError("config.data.distractors", data.distractors, rule)
    return dataclasses.replace(found, database=JoinedSource(found.database, distractors))


def is_prepared(data: DataSettings) -> bool:
    """Whether all parts of Google Landmarks v2 that `retrieval` opens are prepared."""
    first = "index" if data.name == "gldv2" else _training_part(data.name)
    parts = (_builder(GoogleLandmarksV2, data, part, part=part) for part in (first, "test"))
    return all(builder.data_path.exists() for builder in parts)


def _landmark_queries(data: DataSettings) -> RetrievalData:
    """Google Landmarks v2; `config.data.ground_truth` names the queries, private or public."""
    require_choice("config.data.ground_truth", data.ground_truth, tuple(USAGES))
    usage = USAGES[data.ground_truth]
    if data.name == "gldv2":
        index = _landmarks(data, "index")
        return in_index(index, _landmarks(data, "test"), usage)
    train = _landmarks(data, _training_part(data.name))
    return in_training_images(train, _landmarks(data, "test"), usage)


def in_index(
    index: tfds.core.DatasetBuilder, test: tfds.core.DatasetBuilder, usage: str
) -> RetrievalData:
    """The task retrieval: queries find images of their landmark in the index.

    Args:
      index: prepared `index`.
      test: prepared `test`.
      usage: Private or Public.

    Returns:
      RetrievalData; what is relevant is easy, and `answers` has what could not be prepared, too.

    Raises:
      UserError: if there is no query.
    """
    database = PreparedSource(index, "index")
    answers = gldv2_files.read_retrieval(pathlib.Path(test.data_path), usage)
    queries = _queries(test, list(answers), usage)
    place = {name: position for position, name in enumerate(database.names)}
    relevant = []
    for name in queries.names:
        relevant.append(sorted(place[image] for image in answers[name] if image in place))
    lacking = sum(image not in place for images in answers.values() for image in images)
    if lacking:
        _LOG.warning("%d relevant images lack in the index; they count as not found", lacking)
    truth = _ground_truth(queries, relevant)
    return RetrievalData(database, queries, truth, answers=answers, skipped=_skipped(index))


def in_training_images(
    train: tfds.core.DatasetBuilder, test: tfds.core.DatasetBuilder, usage: str
) -> RetrievalData:
    """The task recognition: training images that are found name the landmark of a query.

    Args:
      train: prepared `train` or `train_clean`; both of its splits are searched.
      test: prepared `test`.
      usage: Private or Public.

    Returns:
      RetrievalData with published landmarks; all images of a query's are easy.

    Raises:
      UserError: if there is no query.
    """
    answers = gldv2_files.read_recognition(pathlib.Path(test.data_path), usage)
    queries = _queries(test, list(answers), usage)
    database = JoinedSource(*(PreparedSource(train, split) for split in relabelling.SPLITS))
    listed = relabelling.read(pathlib.Path(train.data_path) / relabelling.FILE)
    published = np.array([int(name) for name in relabelling.classes(listed)], np.int64)
    landmarks = Landmarks(published[database.labels], [answers[name] for name in queries.names])
    order = np.argsort(landmarks.database, kind="stable")
    ascending = landmarks.database[order]
    relevant: list[list[int]] = []
    for shown in landmarks.queries:
        first, last = (np.searchsorted(ascending, shown, side=side) for side in ("left", "right"))
        places = [order[start:stop] for start, stop in zip(first, last, strict=True)]
        relevant.append(np.unique(np.concatenate([order[:0], *places])).tolist())
    truth = _ground_truth(queries, relevant)
    return RetrievalData(database, queries, truth, landmarks, answers, _skipped(train))


def _skipped(builder: tfds.core.DatasetBuilder) -> int:
    """Images that could not be prepared."""
    listed = SkipLog(pathlib.Path(builder.data_path).parent / "skipped.csv").read()
    return max(len(listed) - 1, 0)  # without the header


def _queries(test: tfds.core.DatasetBuilder, wanted: list[str], usage: str) -> PreparedSource:
    """The wanted test images that could be prepared, in order; a UserError if there are none."""
    prepared = set(PreparedSource(test, "test").names)
    queries = PreparedSource(test, "test", [name for name in wanted if name in prepared])
    if not len(queries):
        rule = f"leaves no query: the solution has none of the usage {usage}"
        if wanted:
            rule = f"leaves no query: all {len(wanted)} of the usage {usage} were skipped"
        raise UserError("config.data.ground_truth", usage.lower(), rule)
    if len(queries) < len(wanted):
        skipped = len(wanted) - len(queries)
        _LOG.warning("%d queries were skipped; they count as finding nothing", skipped)
    return queries


def _ground_truth(queries: PreparedSource, relevant: list[list[int]]) -> list[dict]:
    return [
        {"bbx": [0, 0, width, height], "easy": images, "hard": [], "junk": []}
        for (height, width), images in zip(queries.sizes.tolist(), relevant, strict=True)
    ]


def _landmarks(data: DataSettings, part: str) -> ImageSetBuilder:
    return _prepared(GoogleLandmarksV2, data, part, part=part)


def _training_part(name: str) -> str:
    return "train_clean" if name.startswith("gldv2_clean") else "train"


def _prepared(
    kind: type[ImageSetBuilder],
    data: DataSettings,
    variant: str,
    root: str = "root",
    **fields: str,
) -> ImageSetBuilder:
    """A builder, prepared of the folder that a field of `config.data` names."""
    builder = _builder(kind, data, variant, **fields)
    return prepare(
        builder, getattr(data, root), data.max_skipped, data.beam_options, f"config.data.{root}"
    )


def _builder(
    kind: type[ImageSetBuilder], data: DataSettings, variant: str, **fields: str
) -> ImageSetBuilder:
    """A builder with the settings of `config.data`; other settings, another folder."""
    usual = {field.name: field.default for field in dataclasses.fields(ImageSetConfig)}
    shared = {name: getattr(data, name) for name in _SHARED}
    changed = [f"{name}_{value}" for name, value in shared.items() if value != usual[name]]
    config: str | ImageSetConfig = "-".join([variant, *changed])
    if config not in kind.builder_configs:  # TFDS wants those of the builder by their name
        config_kind = GoogleLandmarksV2Config if fields else ImageSetConfig
        values: dict[str, Any] = shared | fields
        config = config_kind(name=config, **values)
    return kind(config=config, data_dir=tfds_folder(data.tfds_dir), file_format="array_record")


def _folder_name(data: DataSettings) -> str:
    """Name of the prepared data of a folder: its own, and a digest of its path.

    Of a folder that moved with all its images, it is the name from before; without a folder, that
    of the only one that is prepared.
    """
    if not data.root:
        return _only_folder(data)
    path = existing_root(data.root)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:_PATH_DIGEST]
    name = f"{file_names.to_text(path.name)}-{digest}"
    prepared = _prepared_folders(data)
    if name in prepared:
        return name
    for before in prepared:
        # Only folders of the same name, or all of every other would be looked at
        same = before[:-_PATH_DIGEST] == name[:-_PATH_DIGEST]
        if same and is_prepared_of(_builder(ImageFolder, data, before), path):
            paths = (file_names.to_text(str(one)) for one in (path, before))
            _LOG.info("%s is what was prepared as %s", *paths)
            return before
    return name


def _only_folder(data: DataSettings) -> str:
    prepared = _prepared_folders(data)
    if len(prepared) == 1:
        return prepared[0]
    rule = f"must name one of the {len(prepared)} folders that are prepared: {', '.join(prepared)}"
    rule = rule if prepared else "must be an existing folder"
    raise UserError("config.data.root", data.root, rule)


def _prepared_folders(data: DataSettings) -> list[str]:
    """Names under which folders are prepared with the settings of `config.data`."""
    example = pathlib.Path(_builder(ImageFolder, data, "name").data_path)
    settings = re.escape(example.parent.name.removeprefix("name"))
    pattern = re.compile(rf"(.+-[0-9a-f]{{{_PATH_DIGEST}}}){settings}")
    found = example.parents[1].glob(f"*/{example.name}")
    matches = (pattern.fullmatch(path.parent.name) for path in found)
    return sorted(match[1] for match in matches if match)
