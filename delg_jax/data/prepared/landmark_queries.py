"""The test images of Google Landmarks v2 as queries: to be found in the index, or recognised."""

import logging
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from delg_jax.data.prepared import gldv2_tables
from delg_jax.data.prepared import split as relabelling
from delg_jax.data.prepared.source import PreparedSource
from delg_jax.data.skips import SkipLog
from delg_jax.data.sources import JoinedSource, Landmarks, RetrievalData
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)
# Values of config.data.ground_truth, and the published usages
USAGES = {"": "Private", "private": "Private", "public": "Public"}


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
    answers = gldv2_tables.read_retrieval(pathlib.Path(test.data_path), usage)
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
    answers = gldv2_tables.read_recognition(pathlib.Path(test.data_path), usage)
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
