"""ILIAS: mean average precision at k, and its evaluation over distractors that come in parts.

The numbers are those of the public evaluation code of Kordopatis-Zilos et al., CVPR 2025.
"""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from delg_jax import array_files, hdf5_files, text_files, workdir
from delg_jax.data.ilias import CORE, Ids, lists_of, object_of, read_ids
from delg_jax.errors import UserError
from delg_jax.evaluation.gldv2 import average_precision
from delg_jax.file_stamps import stamp
from delg_jax.progress import Progress
from delg_jax.search.global_search import StreamedSearch

# Groups of positives by the share that the object covers, and by the number of other things: a
# positive is in the group of the last bound that is not above it (public code)
SCALES = (0.0, 0.06880213760855043, 0.13526567164179104, 0.2729876723163842)
CLUTTER = (0.0, 18.0, 33.0, 53.0)

_FEATURES, _INDEX = "features", "index"
_ROWS = 65_536  # read at a time
_LISTS = "lists.npz"

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Metrics in [0, 1].

    Attributes:
      map: mean over the queries.
      average_precisions: float64 [Q].
      oracle: mean share of the positives that are among the first k, the AP of their best order.
      scale: AP by `SCALES`, of positives in the group alone, the others taken out of the lists.
      clutter: the same by `CLUTTER`.
    """

    map: float
    average_precisions: np.ndarray
    oracle: float
    scale: list[float]
    clutter: list[float]


def score(
    ids: Ids, queries: Sequence[str], similarities: np.ndarray, images: np.ndarray, k: int = 1000
) -> Metrics:
    """Scores lists of images.

    Equal similarities count together: each of them has the precision at the end of the tie.

    Args:
      ids: of the data set.
      queries: ids of Q queries.
      similarities: float [Q, M], best first; minus infinity where there is no image.
      images: int [Q, M], below P the number of a positive; others are distractors.
      k: images that count.

    Returns:
      The metrics; NaN for a group without positives of any query.

    Raises:
      ValueError: for lists of different shapes, or k below 1.
    """
    if np.shape(similarities) != np.shape(images) or len(images) != len(queries):
        shapes = (len(queries), np.shape(similarities), np.shape(images))
        raise ValueError(f"`queries`, `similarities`, `images` (shapes {shapes}) must fit")
    if k < 1:
        raise ValueError(f"`k` (={k}) must be at least 1")
    groups = {
        "scale": np.searchsorted(SCALES, ids.scales, side="right") - 1,
        "clutter": np.searchsorted(CLUTTER, ids.clutter, side="right") - 1,
    }
    objects = np.array([object_of(name) for name in ids.positives])
    precisions, oracles = [], []
    by_group: dict[str, list[list[float]]] = {name: [[] for _ in SCALES] for name in groups}
    for query, scores, row in zip(queries, similarities, images, strict=True):
        kept = scores > -np.inf
        scores, row = np.asarray(scores)[kept], np.asarray(row)[kept]
        wanted = objects == object_of(query)
        found = np.zeros(len(row), bool)
        known = row < len(objects)
        found[known] = wanted[row[known]]
        precisions.append(_precision(scores, found, int(wanted.sum()), k))
        oracles.append(found[:k].sum() / wanted.sum())
        for name, group in groups.items():
            for number, values in enumerate(by_group[name]):
                inside = wanted & (group == number)
                if inside.any():
                    stay = ~found
                    stay[known] |= inside[row[known]]
                    values.append(_precision(scores[stay], found[stay], int(inside.sum()), k))
    means = {
        name: [float(np.mean(values)) if values else float("nan") for values in lists]
        for name, lists in by_group.items()
    }
    return Metrics(
        float(np.mean(precisions)), np.array(precisions), float(np.mean(oracles)), **means
    )


def _precision(scores: np.ndarray, found: np.ndarray, positives: int, k: int) -> float:
    """Average precision of the first k, with as many positives as they can hold."""
    return average_precision(scores[:k], found[:k], "together", min(positives, k))


def evaluate_files(
    root: pathlib.Path,
    queries: pathlib.Path,
    positives: pathlib.Path,
    distractors: pathlib.Path | None,
    output: pathlib.Path,
    k: int = 1000,
    selected: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Searches files of global descriptors, `features` [N, D] and `index` [N], part by part.

    Memory holds one block and the lists. The lists are saved after each part; the same call resumes
    after the last one.

    Args:
      root: of the data set, for its lists.
      queries: file of the image queries.
      positives: file of the positives.
      distractors: folder of parts, in the order of their names; None for the core alone.
      output: folder of `ilias.json` and the lists.
      k: images that count.
      selected: text file of the distractors that count, by id without the shard (mini-ILIAS).

    Returns:
      What `ilias.json` holds: metrics in percent, AP by query, and numbers of images.

    Raises:
      UserError: for files that are damaged or of other images, and dimensions that differ.
    """
    ids = read_ids(root)
    if k < 1:
        raise UserError("k", k, "must be at least 1")
    parts = [] if distractors is None else _parts(distractors)
    chosen = None if selected is None else _selected(selected)
    found = _read_whole(queries, ids.queries, "queries")
    targets = _read_whole(positives, ids.positives, "positives")
    if found.shape[1] != targets.shape[1]:
        rule = f"has {targets.shape[1]} dimensions, the queries {found.shape[1]}"
        raise UserError("positives", str(positives), rule)
    search = StreamedSearch(found, k, _ROWS)
    search.add(targets)
    first = [*lists_of(root), queries, positives, *([] if selected is None else [selected])]
    state = _State(output / _LISTS, first, k)
    done, counted = state.load(search, parts)
    with Progress("distractors", len(parts) - done, "part") as progress:
        for number, part in enumerate(parts[done:], start=done + 1):
            counted += _add(search, part, found.shape[1], set(ids.positives), chosen)
            state.save(search, parts[:number], counted)
            progress.advance()
    similarities, images = search.lists()
    metrics = score(ids, ids.queries, similarities, images, k)
    result = {
        f"map@{k}": 100 * metrics.map,
        "oracle": 100 * metrics.oracle,
        "scale": [_percent(value) for value in metrics.scale],
        "clutter": [_percent(value) for value in metrics.clutter],
        "queries": len(ids.queries),
        "positives": len(ids.positives),
        "distractors": counted,
        "average_precisions": dict(
            zip(ids.queries, (100 * metrics.average_precisions).tolist(), strict=True)
        ),
    }
    workdir.write_json(output / "ilias.json", result)
    return result


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * value


def _parts(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise UserError("distractors", str(folder), "must be a folder of .hdf5 files")
    found = sorted(path for path in folder.iterdir() if path.suffix in (".hdf5", ".h5"))
    if not found:
        raise UserError("distractors", str(folder), "holds no .hdf5 file")
    return found


def _selected(path: pathlib.Path) -> set[str]:
    return {line for _, line in text_files.lines(text_files.read(path, "selected"))}


def _read_whole(path: pathlib.Path, names: list[str], what: str) -> np.ndarray:
    """The rows of the images of a list, float32 [N, D], in its order."""
    with hdf5_files.opened(path) as file, hdf5_files.naming(path, what):
        index = [name.removeprefix(f"{CORE}/") for name in _index(file)]
        rows = {name: row for row, name in enumerate(index)}
        absent = [name for name in names if name not in rows]
        surplus = sorted(rows.keys() - set(names))
        if absent or surplus or len(rows) < len(index):
            wrong = f"lacks {len(absent)} of the listed images" if absent else "has other images"
            first = (absent or surplus or ["one image twice"])[0]
            raise ValueError(f"{wrong} ({first}); it must have each of the {len(names)} once")
        features = np.concatenate(list(_blocks(file)) or [np.zeros((0, 0), np.float32)])
        return features[[rows[name] for name in names]]


def _add(
    search: StreamedSearch,
    path: pathlib.Path,
    dimension: int,
    positives: set[str],
    selected: set[str] | None,
) -> int:
    """Searches one part; returns how many of its images count."""
    with hdf5_files.opened(path) as file, hdf5_files.naming(path, "distractors"):
        index = _index(file)
        both = [name for name in index if name.removeprefix(f"{CORE}/") in positives]
        if both:
            raise ValueError(f"{both[0]} is a positive; a file of the core is no distractors")
        present = np.ones(len(index), bool)
        if selected is not None:
            present[:] = [name.partition("/")[2] in selected for name in index]
        start = 0
        for rows in _blocks(file):
            if rows.shape[1] != dimension:
                raise ValueError(f"it has {rows.shape[1]} dimensions, the queries {dimension}")
            exists = present[start : start + len(rows)]
            search.add(rows, None if exists.all() else exists)
            start += len(rows)
        return int(present.sum())


def _index(file: Any) -> list[str]:
    dataset = hdf5_files.member(file, _INDEX)
    if dataset is None:
        raise ValueError(f"it has no {_INDEX}, the ids of its rows")
    names = hdf5_files.read_texts(dataset, _INDEX)
    features = hdf5_files.member(file, _FEATURES)
    hdf5_files.check(features, _FEATURES)
    if features.ndim != 2 or len(features) != len(names):
        raise ValueError(f"{_FEATURES} {features.shape} must be [{len(names)}, D], as {_INDEX}")
    return names


def _blocks(file: Any) -> Iterator[np.ndarray]:
    """The features, float32, some rows at a time."""
    features = hdf5_files.member(file, _FEATURES)
    for start in range(0, len(features), _ROWS):
        rows = hdf5_files.read(features, _FEATURES, slice(start, start + _ROWS))
        yield hdf5_files.finite(rows, _FEATURES)


class _State:
    """The saved lists of an evaluation.

    Args:
      path: of the file.
      files: that decide the lists, besides the parts.
      k: length of the lists.
    """

    def __init__(self, path: pathlib.Path, files: list[pathlib.Path], k: int) -> None:
        self._path, self._files, self._k = path, files, k

    def load(self, search: StreamedSearch, parts: list[pathlib.Path]) -> tuple[int, int]:
        """Restores lists of the first parts, if they are those of these files.

        Returns:
          The number of parts that are in the lists, and of distractors that count.
        """
        if not self._path.is_file():
            return 0, 0
        try:
            saved = array_files.read_arrays(self._path)
            done, counted, count = (int(value) for value in saved["numbers"])
            if done <= len(parts) and str(saved["files"]) == self._digest(parts[:done]):
                search.restore(saved["similarities"], saved["images"], count)
                _LOG.info("%s: resumed after %d parts", self._path, done)
                return done, counted
        except (OSError, ValueError, KeyError) as error:
            _LOG.warning("%s is not used: %s", self._path, error)
        return 0, 0

    def save(self, search: StreamedSearch, parts: list[pathlib.Path], counted: int) -> None:
        """Saves the lists of the first parts."""
        similarities, images = search.lists()
        arrays = {
            "similarities": similarities,
            "images": images,
            "numbers": np.array([len(parts), counted, search.count]),
            "files": np.array(self._digest(parts)),
        }
        workdir.write_arrays(self._path, arrays)

    def _digest(self, parts: list[pathlib.Path]) -> str:
        found = hashlib.sha256(str(self._k).encode())
        for path in (*self._files, *parts):
            size, time, _ = stamp(path)
            found.update(f"{path.name}\0{size} {time}\0".encode())
        return found.hexdigest()
