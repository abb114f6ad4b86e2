"""Validation images of labelled data as pairs to compare, as in DELG's Table 1 (section 4.1)."""

import numpy as np

from delg_jax import data as data_sets
from delg_jax.data.images import BadImageError, EncodedImage
from delg_jax.data.sources import DataSettings, RetrievalData, SelectedSource
from delg_jax.errors import UserError

CLASSES = 1000  # at most; the paper has as many pairs of the same landmark


def retrieval(data: DataSettings) -> RetrievalData:
    """Takes two validation images of each of some classes, a query and the one it should find.

    Args:
      data: which data set it is, of labelled data.

    Returns:
      As many queries as database images, at most `CLASSES`; the same for every seed.

    Raises:
      UserError: if no class has two readable validation images, or the data cannot be opened.
    """
    source = data_sets.training(data).validation
    rng = np.random.default_rng(0)
    order = rng.permutation(len(source))
    by_class: dict[int, list[int]] = {}
    for place in order.tolist():
        by_class.setdefault(int(source.labels[place]), []).append(place)
    queries: list[int] = []
    database: list[int] = []
    truth: list[dict] = []
    for places in by_class.values():
        if len(places) < 2 or len(queries) == CLASSES:
            continue
        try:
            height, width = EncodedImage(source.read(places[0])).shape
        except (BadImageError, OSError):
            continue
        found = {"bbx": [0, 0, width, height], "easy": [len(database)], "hard": [], "junk": []}
        truth.append({**found, "landmark": int(source.labels[places[0]])})
        queries.append(places[0])
        database.append(places[1])
    if not queries:
        rule = "must have two validation images of a class, to compare them"
        raise UserError("config.data.name", data.name, rule)
    images, asked = (SelectedSource(source, np.array(part)) for part in (database, queries))
    return RetrievalData(images, asked, truth)
