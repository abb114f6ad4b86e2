"""ILIAS: 1,232 queries, 4,715 positives of 1,000 objects, and up to 100M distractors.

Kordopatis-Zilos et al., "ILIAS: Instance-Level Image retrieval At Scale", CVPR 2025. `ROOT` holds
`ilias_core/`, a folder for each object, and the lists in `image_ids/`. An image is named by its
path, such as `bold_bimp_000/pos/P000_00.jpg`; the first folder is its object.
"""

import dataclasses
import pathlib

import numpy as np

from delg_jax import text_files
from delg_jax.data.folder import existing_root
from delg_jax.data.images import BadImageError, EncodedImage
from delg_jax.data.sources import DataSettings, FileSource, RetrievalData
from delg_jax.errors import UserError

CORE = "ilias_core"
_QUERIES, _POSITIVES = "image_ids/image_query_ids.txt", "image_ids/positive_ids.txt"


@dataclasses.dataclass(frozen=True)
class Ids:
    """The images of the lists.

    Attributes:
      queries: ids, in the order of their list.
      positives: ids, in the order of their list.
      scales: float64 [P], the share of a positive that its object covers.
      clutter: int64 [P], the number of other things that it shows.
    """

    queries: list[str]
    positives: list[str]
    scales: np.ndarray
    clutter: np.ndarray


def lists_of(root: pathlib.Path) -> list[pathlib.Path]:
    """The files that `read_ids` reads."""
    return [root / _QUERIES, root / _POSITIVES]


def object_of(image: str) -> str:
    """The object that an image shows, by its id."""
    return image.partition("/")[0]


def read_ids(root: pathlib.Path) -> Ids:
    """Reads `image_ids/`.

    Args:
      root: of the data set.

    Returns:
      The ids.

    Raises:
      UserError: if a list is absent or damaged, an image is listed twice, or a query has no
        positive.
    """
    queries = [fields[0] for _, fields in _lines(root / _QUERIES)]
    positives, scales, clutter = [], [], []
    for number, fields in _lines(root / _POSITIVES):
        try:
            name, scale, things = fields
            scales.append(float(scale))
            clutter.append(int(things))
        except ValueError:
            rule = f"must have an image, its scale and its clutter in line {number}"
            raise UserError("list of ILIAS", str(root / _POSITIVES), rule) from None
        positives.append(name)
    for file, names in ((_QUERIES, queries), (_POSITIVES, positives)):
        if not names or len(set(names)) < len(names):
            rule = "must list images, each once"
            raise UserError("list of ILIAS", str(root / file), rule)
    without = {object_of(name) for name in queries} - {object_of(name) for name in positives}
    if without:
        rule = f"lists no positive of {sorted(without)[0]}, which has queries"
        raise UserError("list of ILIAS", str(root / _POSITIVES), rule)
    return Ids(queries, positives, np.array(scales), np.array(clutter, np.int64))


def _lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    text = text_files.read(path, "list of ILIAS")
    lines = [(number, line.split(",")) for number, line in text_files.lines(text)]
    return [(number, [field.strip() for field in fields]) for number, fields in lines]


def retrieval(data: DataSettings) -> RetrievalData:
    """Opens the queries and the positives under `config.data.root`; queries are not cropped.

    Args:
      data: which data set it is.

    Returns:
      RetrievalData; its database is the positives, and each query finds those of its object.

    Raises:
      UserError: if the folder or a list is absent or damaged, or a query cannot be read.
    """
    root = existing_root(data.root)
    ids = read_ids(root)
    database, queries = (
        FileSource(root / CORE, names, np.full(len(names), -1, np.int64))
        for names in (ids.positives, ids.queries)
    )
    places: dict[str, list[int]] = {}
    for place, name in enumerate(ids.positives):
        places.setdefault(object_of(name), []).append(place)
    entries = []
    for index, name in enumerate(ids.queries):
        try:
            height, width = EncodedImage(queries.read(index)).shape
        except (BadImageError, OSError) as error:
            raise UserError("query of ILIAS", name, f"cannot be read ({error})") from error
        box = [0, 0, width, height]
        entries.append({"bbx": box, "easy": places[object_of(name)], "hard": [], "junk": []})
    return RetrievalData(database, queries, entries)
