"""Random access to prepared images."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from delg_jax.data.prepared import records
from delg_jax.data.sources import stamp_of_files


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
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, only: Sequence[str] | None = None
    ) -> None:
        self._records = builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        listed = records.read(pathlib.Path(builder.data_path), split)
        positions = np.arange(len(listed.names))
        if only is not None:
            place = {name: position for position, name in enumerate(listed.names)}
            positions = np.asarray([place[name] for name in only], np.int64)
        self._positions = positions
        self._stamp = stamp_of_files(pathlib.Path(builder.data_path).glob(f"*-{split}.*"))
        self.names = [listed.names[position] for position in positions]
        self.labels, self.sizes = listed.labels[positions], listed.sizes[positions]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Returns the encoded bytes of the image with an index from 0 to N - 1."""
        return self._records[int(self._positions[index])]["image"]

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Size and times of the files of the split, int64 [n, 3], the same for all images."""
        return np.tile(self._stamp, (len(indices), 1))
