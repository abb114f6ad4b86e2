"""A folder of images with a subfolder for each class."""

import pathlib

from delg_jax.data.folder import labelled
from delg_jax.data.tfds_builders.builder import Groups, LabelledBuilder
from delg_jax.data.tfds_builders.manifest import ImageFile, Source, inside
from delg_jax.errors import UserError


class ImageFolder(LabelledBuilder):
    """One's own images, `ROOT/<class>/*.jpg`, split as Google Landmarks is.

    The splits are `validation`, a fifth of each class by default, and `train`. Labels are 0 to
    C - 1; `relabelling.csv` beside the records has the path, the class, the label and the split of
    each image.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder must hold a folder of images for each class."

    def find(self, root: pathlib.Path) -> Source:
        """The images, which no list names."""
        images = [name for name, _ in labelled(root)]
        if not images:
            raise UserError("config.data.root", str(root), "must have folders of images")
        return Source(root, images=tuple(images))

    def _groups(self, source: Source) -> dict[str, Groups]:
        split = self._relabel((name, name.split("/")[0]) for name in source.images or ())
        return self._file_groups(split, lambda name: ImageFile(source.folder, "", name, inside))
