"""A folder of images with a subfolder for each class."""

import functools

import tensorflow_datasets as tfds

from delg_jax.data.folder import labelled
from delg_jax.data.prepared.builder import Groups, required_folder
from delg_jax.data.prepared.image_files import read_inside
from delg_jax.data.prepared.labelled import LabelledBuilder
from delg_jax.errors import UserError


class ImageFolder(LabelledBuilder):
    """One's own images, `ROOT/<class>/*.jpg`, split as Google Landmarks is.

    The splits are `validation`, a fifth of each class by default, and `train`. Labels are 0 to
    C - 1; `relabelling.csv` beside the records has the path, the class, the label and the split of
    each image.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder must hold a folder of images for each class."

    def _groups(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Groups]:
        root = required_folder(dl_manager)
        images = labelled(root)
        if not images:
            raise UserError("config.data.root", str(root), "must have folders of images")
        return self._file_groups(self._relabel(images), functools.partial(read_inside, root))
