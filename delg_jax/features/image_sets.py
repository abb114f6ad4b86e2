"""The image sets of an experiment, one per feature store."""

import pathlib
from typing import NamedTuple

import ml_collections

from delg_jax.data import RetrievalData, open_retrieval
from delg_jax.data.listing import open_images
from delg_jax.data.sources import ImageSource
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.origins import Box

LISTED = "images"  # the set, and the data set, whose images `listing` finds
PARTS = ("database", "queries")


def store_folder(root: pathlib.Path, data_set: str, part: str) -> pathlib.Path:
    """Folder of a feature store: that of the data set `images` is what `extract --images` writes.

    Args:
      root: the workdir.
      data_set: its name, `config.data.name`.
      part: `database` or `queries`.
    """
    listed = part == "database" and data_set == LISTED
    return root / "features" / (LISTED if listed else part)


class ImageSet(NamedTuple):
    """Images of one store; small enough to be sent to another machine.

    Attributes:
      config: the whole tree.
      name: `database`, `queries` or `images`; also of the store under `features/`.
      images: for the set `images`: a folder, glob, list file or tar.
    """

    config: ml_collections.ConfigDict
    name: str
    images: str = ""

    def open(self, data: RetrievalData | None = None) -> tuple[ImageSource, list[Box] | None]:
        """Opens the images.

        Args:
          data: of the experiment, if it is open already.

        Returns:
          The images, and the boxes that they are cropped to, or None.
        """
        if self.name == LISTED:
            return open_images(self.images), None
        data = data or open_retrieval(self.config.data)
        if self.name == "database":
            return data.database, None
        return data.queries, query_boxes(self.config, data)


def query_boxes(config: ml_collections.ConfigDict, data: RetrievalData) -> list[Box] | None:
    """Boxes that queries are cropped to, [x1, y1, x2, y2] in pixels; None if they are not."""
    if is_imported(config.extract) or not config.extract.crop_queries:
        return None
    return [tuple(entry["bbx"]) for entry in data.ground_truth]
