"""Revisited Oxford and Paris: their ground truth, its protocols, and their folders of images.

Ground truth is JSON, or the official pickle, of which nothing is executed. The layout is
`ROOT/jpg/*.jpg` and `ROOT/gnd_*.json` or `.pkl`. Names of the ground truth stand without the ending
`.jpg`; one that is there is understood, as are files of other endings.
"""

import collections
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from delg_jax import file_names, text_files
from delg_jax.data import pickles
from delg_jax.data.folder import existing_root
from delg_jax.data.image_files import SUFFIXES
from delg_jax.data.sources import DataSettings, FileSource, RetrievalData
from delg_jax.errors import UserError

# Protocol -> lists of a ground truth entry that are positives, and those that are ignored
PROTOCOLS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


def protocol_sets(
    entry: Mapping[str, Sequence[int]], protocol: str
) -> tuple[np.ndarray, np.ndarray]:
    """The images of one query that a protocol wants found, and those that it ignores.

    Args:
      entry: ground truth of the query, lists `easy`, `hard` and `junk` of image indices.
      protocol: easy, medium or hard.

    Returns:
      Positives int64 [P] and ignored int64 [E].

    Raises:
      ValueError: for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` (={protocol!r}) must be one of {', '.join(PROTOCOLS)}")
    positives, ignored = (
        np.concatenate([np.asarray(entry[name], np.int64) for name in names])
        for names in PROTOCOLS[protocol]
    )
    return positives, ignored


def landmarks_of(entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The landmark that each query of a ground truth shows.

    Args:
      entries: for each query `easy`, `hard` and `junk`, and `landmark`, its name or number, if the
        file has it. Without, see `query_landmarks`.

    Returns:
      int64 [Q], a number for each landmark.
    """
    if entries and all("landmark" in entry for entry in entries):
        names = [str(entry["landmark"]) for entry in entries]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)
    return query_landmarks(
        [[image for name in LISTS for image in entry[name]] for entry in entries]
    )


def query_landmarks(answers: Sequence[Sequence[int | str]]) -> np.ndarray:
    """Groups queries that show one landmark, by the answers that they share.

    Two queries show one landmark if they share more than half of the answers of the one with fewer;
    so do queries that are linked by others. The groups of Revisited Oxford and Paris are their
    eleven landmarks.

    Args:
      answers: for each query all images that were judged for it, or the landmarks it shows. A query
        without answers is a group of its own.

    Returns:
      int64 [Q], a number for each group.
    """
    numbers: dict[int | str, int] = {}
    places = [
        (row, numbers.setdefault(a, len(numbers))) for row, own in enumerate(answers) for a in own
    ]
    rows, columns = np.array(places, np.int64).reshape(-1, 2).T
    shape = (len(answers), max(len(numbers), 1))
    judged = sparse.csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape)
    judged.data[:] = 1  # an answer that is listed twice
    shared = (judged @ judged.T).tocoo()
    sizes = judged.sum(axis=1)
    linked = 2 * shared.data > np.minimum(sizes[shared.row], sizes[shared.col])
    pairs = shared.row[linked], shared.col[linked]
    graph = sparse.coo_array((np.ones(len(pairs[0]), bool), pairs), (len(answers), len(answers)))
    return sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


LISTS = ("easy", "hard", "junk")
_OLD = ("good", "ok")  # the images to find, before there were easy and hard ones
_PICKLES = (".pkl", ".pickle")
_LONGEST_REASON = 200  # characters; texts of decoders can quote the file
_MOST_LISTED = 5


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads and checks a ground truth file.

    Args:
      path: `.json`, or a pickle (`.pkl`, `.pickle`) as published with Revisited Oxford and Paris.
        Entries of the older layout have `ok` and `junk`, and may have `good`: good and ok images
        become easy ones.

    Returns:
      A dict of `imlist` and `qimlist` (names) and `gnd` (for each query `bbx`, `easy`, `hard`,
      `junk`, and if the file gives it `landmark`, see `landmarks_of`).

    Raises:
      UserError: if the file is absent, damaged, of another layout, contains code, or contradicts
        itself.
    """
    try:
        data = path.read_bytes()
        is_pickle = path.suffix.lower() in _PICKLES
        content = pickles.read(data) if is_pickle else text_files.parse_json(data)
    except OSError as error:
        raise UserError("ground truth", str(path), "must be a readable file") from error
    except Exception as error:  # a hostile pickle can raise anything
        rule = f"cannot be read: {' '.join(str(error).split())[:_LONGEST_REASON]}"
        raise UserError("ground truth", str(path), rule) from error
    fault = _fault_of(content)
    if fault:
        raise UserError("ground truth", str(path), fault)
    return {**content, "gnd": [_renewed(entry) for entry in content["gnd"]]}


def contradiction(entry: Mapping[str, Sequence[int]], names: Sequence[str] = ()) -> str:
    """What contradicts itself in the lists of one query.

    Args:
      entry: lists `easy`, `hard` and `junk` of image indices; others are not read.
      names: of the images, to name them by.

    Returns:
      A clause about the first image that one list has twice, or two lists have; empty if there is
      none.
    """
    places: dict[int, str] = {}
    for name in LISTS:
        for image in map(int, entry[name]):
            known = places.setdefault(image, "")
            if known:
                which = f"image {image} ({names[image]})" if names else f"image {image}"
                twice = f"{name} has {which} twice"
                return twice if known == name else f"{which} is in {known} and {name}"
            places[image] = name
    return ""


def _renewed(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the older layout in the one of today."""
    if "ok" not in entry:
        return entry
    rest = {name: value for name, value in entry.items() if name not in _OLD}
    return {**rest, "easy": [*entry.get("good", ()), *entry["ok"]], "hard": []}


def _fault_of(content: Any) -> str:
    """What is wrong with the content of a file; empty if nothing is."""
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= set(content):
        return "must hold imlist, qimlist and gnd"
    for name in ("imlist", "qimlist"):
        if not content[name] or not _is_list_of(content[name], str):
            return f"{name} must be a list of names"
        for image in content[name]:
            place = pathlib.PurePosixPath(image)
            if not place.parts or place.is_absolute() or ".." in place.parts or "\0" in image:
                return f"{name} must name images inside the folder, not {image!r}"
    queries, entries = content["qimlist"], content["gnd"]
    if not isinstance(entries, list | tuple) or len(queries) != len(entries):
        found = len(entries) if isinstance(entries, list | tuple) else "no"
        return f"has {len(queries)} queries but {found} entries in gnd"
    images = content["imlist"]
    counts: collections.Counter[str] = collections.Counter(images)
    same = [place for place, image in enumerate(images) if counts[image] > 1]
    named = sum(isinstance(entry, dict) and "landmark" in entry for entry in entries)
    if named not in (0, len(entries)):
        return (
            f"gives a landmark in {named} of {len(entries)} entries of gnd; give it in all or none"
        )
    for number, entry in enumerate(entries):
        fault = _fault(entry, images) or _fault_of_copies(_renewed(entry), images, same)
        if fault:
            return f"gnd[{number}]{fault}"
    return ""


def _fault(entry: Any, images: Sequence[str]) -> str:
    """What is wrong with the entry of one query; empty if nothing is."""
    if not isinstance(entry, dict):
        return f" must hold bbx, {_and(LISTS)}"
    old = "ok" in entry
    if old and not set(LISTS[:2]).isdisjoint(entry):
        return " must hold either easy and hard or the older ok, not both"
    names = (*(name for name in _OLD if name in entry), "junk") if old else LISTS
    absent = [name for name in ("bbx", *names) if name not in entry]
    if absent:
        whole = "the whole image is [0, 0, width, height]"
        hint = whole if absent == ["bbx"] else "a list without images is []"
        return f" must hold bbx, {_and(names)}; it lacks {_and(absent)} ({hint})"
    if not isinstance(entry.get("landmark", ""), int | str):
        return ".landmark must be a name or a number"
    if not _is_list_of(entry["bbx"], int | float) or len(entry["bbx"]) != 4:
        return ".bbx must have four numbers"
    if not all(abs(side) <= sys.float_info.max for side in entry["bbx"]):
        return ".bbx must be finite"
    for name in names:
        if not _is_list_of(entry[name], int):
            return f".{name} must be a list of whole numbers, indices into imlist"
        for index in entry[name]:
            if not 0 <= index < len(images):
                return f".{name} has index {index}, outside imlist (0 to {len(images) - 1})"
    clause = contradiction(_renewed(entry), images)
    return f": {clause}; an image must be in one list, once" if clause else ""


def _fault_of_copies(entry: dict[str, Any], images: Sequence[str], same: Sequence[int]) -> str:
    """What is wrong where imlist names an image twice: all of its places must be in one list."""
    if not same:
        return ""
    lists = {index: name for name in LISTS for index in entry[name]}
    first: dict[str, int] = {}
    for place in same:
        other = first.setdefault(images[place], place)
        sides = [lists.get(number, "no list") for number in (other, place)]
        if sides[0] != sides[1]:
            where = f"as image {other} in {sides[0]} and as image {place} in {sides[1]}"
            return f": {images[place]} is {where}; imlist must name it once"
    return ""


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _is_list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )


def retrieval(data: DataSettings) -> RetrievalData:
    """Opens the database and the queries under `config.data.root`.

    Args:
      data: which data set it is.

    Returns:
      RetrievalData.

    Raises:
      UserError: if the folder or the ground truth is absent or wrong, or names absent images.
    """
    root = existing_root(data.root)
    path = _ground_truth_file(root, data.ground_truth)
    content = read(path)
    database, queries = (
        _source(path, root / "jpg", content[name]) for name in ("imlist", "qimlist")
    )
    return RetrievalData(database, queries, content["gnd"])


def find_image(folder: pathlib.Path, name: str) -> str:
    """The file of an image that a ground truth names, with or without its ending.

    Args:
      folder: of the images.
      name: relative to it. Another ending, or the same in capitals, is tried if there is no file
        of this name.

    Returns:
      Relative to the folder; "" if there is none.
    """
    stem, dot, ending = name.rpartition(".")
    named = dot and f".{ending.lower()}" in SUFFIXES
    candidates = [f"{name}.jpg", *([name] if named else [])]
    endings = [form for suffix in SUFFIXES for form in (suffix, suffix.upper())]
    candidates += [f"{stem if named else name}{form}" for form in endings]
    return next((file for file in candidates if file_names.to_path(folder, file).is_file()), "")


def _source(path: pathlib.Path, folder: pathlib.Path, names: list[str]) -> FileSource:
    """The images that a list of the ground truth names."""
    files = [find_image(folder, name) for name in names]
    absent = [name for name, file in zip(names, files, strict=True) if not file]
    if absent:
        more = " ..." if len(absent) > _MOST_LISTED else ""
        rule = f"names {len(absent)} images that jpg/ lacks: {', '.join(absent[:_MOST_LISTED])}"
        raise UserError("ground truth", str(path), rule + more)
    suffix = ".jpg" if all(file.endswith(".jpg") for file in files) else ""
    kept = [file.removesuffix(suffix) for file in files]
    return FileSource(folder, kept, np.full(len(kept), -1, np.int64), suffix)


def _ground_truth_file(root: pathlib.Path, name: str) -> pathlib.Path:
    if name:
        return root / name
    found = sorted(p for p in root.glob("gnd_*") if p.suffix in (".json", ".pkl"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        rule = f"must have one gnd_*.json or gnd_*.pkl (found {names}), or set ground_truth"
        raise UserError("config.data.root", str(root), rule)
    return found[0]
