"""The published data sets as the rest of the package asks for them, prepared first if need be."""

import dataclasses
import hashlib
import logging
import os
import pathlib
import re

import ml_collections

from delg_jax import file_names
from delg_jax.data import ground_truth
from delg_jax.data.folder import existing_root
from delg_jax.data.prepared import landmark_queries
from delg_jax.data.prepared import split as relabelling
from delg_jax.data.prepared.builder import ImageSetBuilder, ImageSetConfig
from delg_jax.data.prepared.distractors import RevisitedDistractors
from delg_jax.data.prepared.gldv1 import GoogleLandmarksV1
from delg_jax.data.prepared.gldv2 import GoogleLandmarksV2, GoogleLandmarksV2Config
from delg_jax.data.prepared.image_folder import ImageFolder
from delg_jax.data.prepared.preparation import is_prepared_of, prepare
from delg_jax.data.prepared.revisited import COPY, RevisitedOxford, RevisitedParis
from delg_jax.data.prepared.source import PreparedSource
from delg_jax.data.sources import JoinedSource, RetrievalData, TrainingData
from delg_jax.errors import UserError, require_choice

_LOG = logging.getLogger(__name__)

_PATH_DIGEST = 8  # hexadecimal digits
_SHARED = ("split_seed", "validation_share", "min_side", "max_pixels")  # decide the records
_REVISITED = {"revisited_oxford": RevisitedOxford, "revisited_paris": RevisitedParis}


def training(data: ml_collections.ConfigDict) -> TrainingData:
    """Opens `gldv1`, `gldv2`, `gldv2_clean` or `image_folder`.

    Args:
      data: the `config.data` tree. A `root` that is named must be what the data in `tfds_dir` were
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


def retrieval(data: ml_collections.ConfigDict) -> RetrievalData:
    """Opens `revisited_oxford` or `revisited_paris`, or the test queries of Google Landmarks v2.

    They are searched in the index (`gldv2`), or to be recognised in the training images
    (`gldv2_recognition`) or the cleaned ones (`gldv2_clean_recognition`).

    Args:
      data: the `config.data` tree. A `root` that is named must be what the data in `tfds_dir` were
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


def with_distractors(found: RetrievalData, data: ml_collections.ConfigDict) -> RetrievalData:
    """Appends the images of `config.data.distractors` to a database, negatives for all queries.

    Args:
      found: what to search in; its ground truth stays as it is.
      data: the `config.data` tree.

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


def _landmark_queries(data: ml_collections.ConfigDict) -> RetrievalData:
    """Google Landmarks v2; `config.data.ground_truth` names the queries, private or public."""
    usages = landmark_queries.USAGES
    require_choice("config.data.ground_truth", data.ground_truth, tuple(usages))
    usage = usages[data.ground_truth]
    if data.name == "gldv2":
        index = _landmarks(data, "index")
        return landmark_queries.in_index(index, _landmarks(data, "test"), usage)
    train = _landmarks(data, _training_part(data.name))
    return landmark_queries.in_training_images(train, _landmarks(data, "test"), usage)


def _landmarks(data: ml_collections.ConfigDict, part: str) -> ImageSetBuilder:
    return _prepared(GoogleLandmarksV2, data, part, part=part)


def is_prepared(data: ml_collections.ConfigDict) -> bool:
    """Whether all parts of Google Landmarks v2 that `retrieval` opens are prepared."""
    first = "index" if data.name == "gldv2" else _training_part(data.name)
    parts = (_builder(GoogleLandmarksV2, data, part, part=part) for part in (first, "test"))
    return all(builder.data_path.exists() for builder in parts)


def _training_part(name: str) -> str:
    return "train_clean" if name.startswith("gldv2_clean") else "train"


def _prepared(
    kind: type[ImageSetBuilder],
    data: ml_collections.ConfigDict,
    variant: str,
    root: str = "root",
    **fields: str,
) -> ImageSetBuilder:
    """A builder, prepared of the folder that a field of `config.data` names."""
    builder = _builder(kind, data, variant, **fields)
    return prepare(builder, data[root], data.max_skipped, data.beam_options, f"config.data.{root}")


def _builder(
    kind: type[ImageSetBuilder], data: ml_collections.ConfigDict, variant: str, **fields: str
) -> ImageSetBuilder:
    """A builder with the settings of `config.data`; other settings, another folder."""
    usual = {field.name: field.default for field in dataclasses.fields(ImageSetConfig)}
    changed = [f"{name}_{data[name]}" for name in _SHARED if data[name] != usual[name]]
    config: str | ImageSetConfig = "-".join([variant, *changed])
    if config not in kind.builder_configs:  # TFDS wants those of the builder by their name
        config_kind = GoogleLandmarksV2Config if fields else ImageSetConfig
        config = config_kind(name=config, **{name: data[name] for name in _SHARED}, **fields)
    return kind(config=config, data_dir=data.tfds_dir or None, file_format="array_record")


def _folder_name(data: ml_collections.ConfigDict) -> str:
    """Name of the prepared data of a folder: its own, and a digest of its path.

    Of a folder that moved with all its images, it is the name from before; without a folder, that
    of the only one that is prepared.
    """
    if not data.root:
        return _only_folder(data)
    path = existing_root(data)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:_PATH_DIGEST]
    name = f"{file_names.to_text(path.name)}-{digest}"
    prepared = _prepared_folders(data)
    if name in prepared:
        return name
    for before in prepared:
        # Only folders of the same name, or all of every other would be looked at
        same = before[:-_PATH_DIGEST] == name[:-_PATH_DIGEST]
        if same and is_prepared_of(_builder(ImageFolder, data, before), path):
            _LOG.info("%s is what was prepared as %s", path, before)
            return before
    return name


def _only_folder(data: ml_collections.ConfigDict) -> str:
    prepared = _prepared_folders(data)
    if len(prepared) == 1:
        return prepared[0]
    rule = f"must name one of the {len(prepared)} folders that are prepared: {', '.join(prepared)}"
    rule = rule if prepared else "must be an existing folder"
    raise UserError("config.data.root", data.root, rule)


def _prepared_folders(data: ml_collections.ConfigDict) -> list[str]:
    """Names under which folders are prepared with the settings of `config.data`."""
    example = pathlib.Path(_builder(ImageFolder, data, "name").data_path)
    settings = re.escape(example.parent.name.removeprefix("name"))
    pattern = re.compile(rf"(.+-[0-9a-f]{{{_PATH_DIGEST}}}){settings}")
    found = example.parents[1].glob(f"*/{example.name}")
    matches = (pattern.fullmatch(path.parent.name) for path in found)
    return sorted(match[1] for match in matches if match)
