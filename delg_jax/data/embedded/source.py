"""Random access to a prepared split, and its ground truth."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delg_jax.data.embedded.ground_truth import relevance
from delg_jax.data.sources import stamp_of_files


class EmbeddedSource:
    """Images of a split in random access; all else is in memory. It can be pickled.

    Args:
      builder: a prepared `EmbeddedLandmarks`.
      split: `train`, `validation`, `index` or `query`.

    Attributes:
      names: list of N names.
      labels: int64 [N], landmark ids.
      homographies: float32 [N, 3, 3], facade pixels to image pixels.
      visible: float32 [N], visible share of the facade.
      boxes: float32 [N, 4], (x1, y1, x2, y2) around what is seen of the facade, pixels.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self._records = builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        self._stamp = stamp_of_files(pathlib.Path(builder.data_path).glob(f"*-{split}.*"))
        records = list(self._records)
        self.names = [record["name"].decode() for record in records]
        self.labels = np.array([record["label"] for record in records], np.int64)
        self.homographies = np.stack([record["homography"] for record in records])
        self.visible = np.array([record["visible"] for record in records], np.float32)
        self.boxes = np.stack([record["bbx"] for record in records])

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Returns the encoded image (JPEG) with an index from 0 to N - 1."""
        return self._records[index]["image"]

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Size and times of the files of the split, int64 [n, 3], the same for all images."""
        return np.tile(self._stamp, (len(indices), 1))


def source(builder: tfds.core.DatasetBuilder, split: str) -> EmbeddedSource:
    """Returns random access to a split of a prepared builder."""
    return EmbeddedSource(builder, split)


def ground_truth(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """Returns the ground truth of index and query, laid out as Revisited Oxford's.

    Args:
      builder: a prepared `EmbeddedLandmarks`.

    Returns:
      A dict of plain Python values: `imlist` (names of the index split in its order), `qimlist`
      (of the query split), and `gnd`, a list with a dict for each query: `bbx` (x1, y1, x2, y2 in
      pixels), and `easy`, `hard`, `junk` (positions in imlist).
    """
    index, query = source(builder, "index"), source(builder, "query")
    gnd = []
    for position in range(len(query)):
        entry = {"bbx": query.boxes[position].tolist(), "easy": [], "hard": [], "junk": []}
        for candidate in np.flatnonzero(index.labels == query.labels[position]).tolist():
            kind = relevance(
                query.homographies[position],
                query.boxes[position],
                index.homographies[candidate],
                float(index.visible[candidate]),
            )
            entry[kind].append(candidate)
        gnd.append(entry)
    return {"imlist": index.names, "qimlist": query.names, "gnd": gnd}
