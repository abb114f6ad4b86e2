"""Google Landmarks, the first version: what the paper trains on."""

import pathlib

from delg_jax.data.tfds_builders import tables
from delg_jax.data.tfds_builders.builder import Groups, LabelledBuilder
from delg_jax.data.tfds_builders.manifest import ImageFile, Source, by_id

_LIST = "train.csv"


class GoogleLandmarksV1(LabelledBuilder):
    """Google Landmarks v1: 1.2 million photographs of 14,951 landmarks (Noh et al., ICCV 2017).

    The splits are `validation`, a fifth of each class by default, and `train`. Labels are 0 to
    C - 1; `relabelling.csv` beside the records has the id, the published landmark, the label and
    the split of each image.
    """

    HOMEPAGE = "https://www.kaggle.com/c/landmark-recognition-challenge"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    The folder must hold train.csv with the columns id and landmark_id, and the images as
    train/<id>.jpg or train/a/b/c/<id>.jpg, where abc are the first characters of the id.
    """

    def find(self, root: pathlib.Path) -> Source:
        """The list."""
        return Source(root, {_LIST: root / _LIST})

    def _groups(self, source: Source) -> dict[str, Groups]:
        rows = tables.read(source.lists[_LIST], ("id", "landmark_id"), key="id")
        labelled = self._relabel((r.name("id"), str(r.integer("landmark_id"))) for r in rows)
        return self._file_groups(
            labelled, lambda name: ImageFile(source.folder, "train", name, by_id)
        )
