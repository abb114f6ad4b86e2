"""The parts of an experiment that are extracted apart: database, queries, or a list of images."""

from typing import NamedTuple

import ml_collections

from delg_jax.data import ImageSource, RetrievalData, open_retrieval
from delg_jax.data.listing import open_images
from delg_jax.features.extraction import Box
from delg_jax.features.formats.imported import is_imported

LISTED = "images"  # the part whose images are named on the command line


class Part(NamedTuple):
    """Where images come from, small enough to be sent to another machine.

    Attributes:
      config: the whole tree.
      name: `database`, `queries` or `images`, and of the store under `features/`.
      images: of the part `images`: a folder, glob, list file or tar.
    """

    config: ml_collections.ConfigDict
    name: str
    images: str = ""

    def open(self, data: RetrievalData | None = None) -> tuple[ImageSource, list[Box] | None]:
        """The images, and what each is cropped to.

        Args:
          data: the experiment's, if the caller has it.
        """
        if self.name == LISTED:
            return open_images(self.images), None
        data = data or open_retrieval(self.config.data)
        if self.name == "database":
            return data.database, None
        return data.queries, query_boxes(self.config, data)


def query_boxes(config: ml_collections.ConfigDict, data: RetrievalData) -> list[Box] | None:
    """What queries are cropped to, [x1, y1, x2, y2] in pixels; None if they are not."""
    if is_imported(config.extract) or not config.extract.crop_queries:
        return None
    return [tuple(entry["bbx"]) for entry in data.ground_truth]
