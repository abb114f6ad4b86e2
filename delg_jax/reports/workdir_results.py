"""Reads the results in a workdir for a report; what is missing or damaged becomes a note."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import Any

import ml_collections
import numpy as np

from delg_jax import configuration, json_files, workdir
from delg_jax.array_files import read_arrays
from delg_jax.data import DataSettings, RetrievalData, open_retrieval
from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.errors import UserError
from delg_jax.evaluation.experiment import sources
from delg_jax.features.image_sets import LISTED, store_folder
from delg_jax.features.store import FeatureStore
from delg_jax.json_files import count, each, every, fields, finite, known, number, require, text
from delg_jax.retrieval import ranking

ALL = "all"  # the ranking of protocols without their own

# Errors of old or damaged outputs, and of data sets that moved
_UNUSABLE = (UserError, OSError, AttributeError, KeyError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class WorkdirResults:
    """Results of one run, as far as they exist.

    Attributes:
      folder: the workdir.
      metrics: of `metrics.json`; empty if nothing was evaluated.
      config: the whole tree; None if nothing was evaluated.
      data: images and ground truth; None if they cannot be opened.
      queries: features of the Q queries, or None.
      database: features of the N images, or None.
      rankings: int [Q, N] by method, then by protocol or "all".
      notes: what is missing and why, in sentences.
    """

    folder: pathlib.Path
    metrics: dict[str, Any]
    config: ml_collections.ConfigDict | None = None
    data: RetrievalData | None = None
    queries: FeatureStore | None = None
    database: FeatureStore | None = None
    rankings: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def names(self) -> tuple[list[str], list[str]] | None:
        """Names of queries and database images; None if unknown."""
        if self.data is not None:
            return list(self.data.queries.names), list(self.data.database.names)
        if self.queries is not None and self.database is not None:
            return self.queries.names, self.database.names
        return None


def read(folder: pathlib.Path, data_root: str = "") -> WorkdirResults:
    """Reads a workdir without changing it.

    Args:
      folder: the workdir.
      data_root: folder of the data set if it moved; "" to use the stored configuration.

    Raises:
      UserError: if `metrics.json` is damaged.
    """
    metrics = read_evaluation(folder / "metrics.json")
    if metrics is None:
        return WorkdirResults(folder, {})
    counts = ranking.skipped_line(metrics)
    notes = [f"{line[0].upper()}{line[1:]}." for line in counts.splitlines()]
    try:
        config = configuration.unflatten(workdir.stored_config(folder / "evaluation"))
    except _UNUSABLE as error:
        return WorkdirResults(
            folder, metrics, notes=[*notes, f"The configuration cannot be read: {_reason(error)}."]
        )
    queries, database = _stores(folder, config, notes)
    data = _data(folder, config, data_root, notes)
    stored = None
    if queries is not None and database is not None:
        stored = [queries.names, database.names]
        in_store = data is not None and set(data.database.names) == set(database.names)
        if data is not None and in_store and config.data.name == LISTED:
            data = data.ordered(database.names)  # images that were added later come last
    listed = data and [list(data.queries.names), list(data.database.names)]
    if None not in (listed, stored) and listed != stored:
        notes.append("The data set has other images than when it was evaluated: no pictures.")
        data = None
    if queries is not None and database is not None:
        queries, database, data = _unchanged(folder, queries, database, data, notes)
    run = WorkdirResults(folder, metrics, config, data, queries, database, notes=notes)
    return dataclasses.replace(run, rankings=_rankings(run))


def _reason(error: Exception) -> str:
    """The reason of an error; a missing field or array means another version."""
    text = str(error).strip("\"'")
    absent = isinstance(error, AttributeError | KeyError)
    return f"it was made by another version of this program, without {text}" if absent else text


def _stores(
    folder: pathlib.Path, config: ml_collections.ConfigDict, notes: list[str]
) -> tuple[FeatureStore | None, FeatureStore | None]:
    """Features of queries and database; neither if one cannot be read."""
    try:
        queries, database = (
            FeatureStore(store_folder(folder, config.data.name, part))
            for part in ("queries", "database")
        )
        _ = queries.names, database.names
    except _UNUSABLE as error:
        notes.append(f"The features cannot be read, so matches are not shown: {_reason(error)}.")
        return None, None
    return queries, database


def _unchanged(
    folder: pathlib.Path,
    queries: FeatureStore,
    database: FeatureStore,
    data: RetrievalData | None,
    notes: list[str],
) -> tuple[FeatureStore | None, FeatureStore | None, RetrievalData | None]:
    """The inputs of the evaluation that have not changed since."""
    try:
        before = workdir.sources(folder / "evaluation")
        now = sources(database, queries, data)
    except _UNUSABLE as error:
        notes.append(f"The features cannot be read, so matches are not shown: {_reason(error)}.")
        return None, None, data
    others = {name for name, digest in before.items() if now.get(name, digest) != digest}
    if "ground_truth" in others:
        text = (
            "The ground truth changed since the evaluation, so the report has no pictures and does "
        )
        notes.append(f"{text}not mark right results; run delg evaluate again.")
        data = None
    if others - {"ground_truth"}:
        text = "The features changed since the evaluation, so matches are not shown; "
        notes.append(f"{text}run delg evaluate again.")
        return None, None, data
    return queries, database, data


def _data(
    folder: pathlib.Path, config: ml_collections.ConfigDict, root: str, notes: list[str]
) -> RetrievalData | None:
    try:
        if root:
            config.data.root = root
        absent = not pathlib.Path(config.data.root or "-").is_dir()
        if absent and config.data.name.startswith("gldv2"):
            from delg_jax.data.tfds_builders import is_prepared  # TFDS, which others do without

            # Uses prepared data; otherwise a folder without the files gives an error instead of a
            # download of everything
            config.data.root = "" if is_prepared(DataSettings.of(config.data)) else str(folder)
        return open_retrieval(config.data)
    except _UNUSABLE as error:
        rule = "so the report has no pictures and does not mark right results"
        notes.append(f"The data set cannot be opened, {rule}: {_reason(error)}.")
        return None


def _rankings(run: WorkdirResults) -> dict[str, dict[str, np.ndarray]]:
    """The stored rankings; none, and a note, if one does not fit the names."""
    if run.names is None:
        run.notes.append("The data set and the features are missing, so no queries are shown.")
        return {}
    shape = tuple(map(len, run.names))
    rankings: dict[str, dict[str, np.ndarray]] = {}
    try:
        for name, order in read_arrays(run.folder / "rankings.npz").items():
            method, _, protocol = name.partition(":")
            fits = order.ndim == 2 and order.dtype.kind == "i" and order.shape == shape
            if not fits or order.min(initial=0) < -1 or order.max(initial=0) >= shape[1]:
                raise ValueError(f"{name} does not rank {shape[1]} images of {shape[0]} queries")
            if run.database is not None and run.queries is not None:  # as metrics count them
                kind = method.split("+")[0]
                present, asked = run.database.present(kind), run.queries.present(kind)
                order = np.where(present[order] & asked[:, None], order, -1)
            if protocol in ("", ALL, *PROTOCOLS):
                rankings.setdefault(method, {})[protocol or ALL] = order
    except _UNUSABLE as error:
        run.notes.append(f"The rankings cannot be read, so no queries are shown: {_reason(error)}.")
        return {}
    return rankings


_SUBJECT = "metrics"


def read_evaluation(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads `metrics.json`, the result of `evaluation.evaluate`.

    Args:
      path: of the file.

    Returns:
      Its content, which may lack fields that earlier versions did not write; None without a file.

    Raises:
      UserError: if it is damaged.
    """
    return json_files.read(path, _SUBJECT, _evaluation)


def read_training(path: pathlib.Path) -> dict[str, float] | None:
    """Reads `train_metrics.json`, the last metrics of a training; see `read_evaluation`."""
    return json_files.read(path, _SUBJECT, each(number))


def _bounds(value: Any, where: str) -> None:
    every(known)(value, where)
    require(len(value) == 2, where, "must have two bounds")


_GAIN = {"over": text, "difference": known, "low": known, "high": known, "p_value": known}
_GAIN_COUNTS = {"queries": count, "landmarks": count}
_FIELDS = fields(
    {
        "methods": each(each(each(known))),
        "seconds": each(finite),
        "images": count,
        "queries": count,
    },
    {
        "average_precisions": each(each(every(known))),
        "intervals": each(each(_bounds)),
        "comparisons": each(each(fields(_GAIN, _GAIN_COUNTS))),
        "query_landmarks": every(count),
        "megabytes": each(known),
        "skipped": each(each(count)),
    },
)


def _evaluation(content: Any, where: str) -> None:
    """Checks each field, and that all fields have the same methods and protocols."""
    _FIELDS(content, where)
    methods = content["methods"]
    shapes = [[(name, list(found)) for name, found in table.items()] for table in methods.values()]
    for method, shape in zip(methods, shapes, strict=True):
        same = shape == shapes[0] and all(metrics for _, metrics in shape)
        require(same, f"methods.{method}", "must have the metrics of the first method")
    _require_all(methods, content["seconds"], "seconds")
    for method, by_protocol in content.get("intervals", {}).items():
        _require_all([method], methods, "methods")
        _require_all(by_protocol, methods[method], f"methods.{method}")


def _require_all(names: Iterable[str], there: Iterable[str], where: str) -> None:
    for name in names:
        require(name in there, f"{where}.{name}", "must be there")
