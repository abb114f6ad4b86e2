"""Google Landmarks: the first version, which the paper trains on, and the second."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delg_jax.data.tfds_builders import gldv2_files, relabelling, tables
from delg_jax.data.tfds_builders.builder import Groups, ImageSetConfig, LabelledBuilder
from delg_jax.data.tfds_builders.manifest import ImageFile, Source, by_id
from delg_jax.data.tfds_builders.records import Item, in_shards

_LIST = "train.csv"


@dataclasses.dataclass
class GoogleLandmarksV2Config(ImageSetConfig):
    """Names a part of the data set.

    Attributes:
      part: `train`, `train_clean`, `index` or `test`.
    """

    part: str = "train"


class GoogleLandmarksV2(LabelledBuilder):
    """Google Landmarks v2 (Weyand et al., CVPR 2020), a config for each part.

    - `train`: 4.1 million images of 203,094 landmarks; `train_clean`: 1.6 million of 81,313. The
      splits are `validation`, a fifth of each class by default, and `train`. Labels are 0 to
      C - 1; `relabelling.csv` beside the records has the id, the published landmark, the label
      and the split of each image.
    - `index`: 762 thousand images to search; the label is the published landmark, or -1.
    - `test`: 118 thousand queries with the answers of recognition (`landmarks`) and retrieval
      (`relevant`, ids of index images) and their usage, Public, Private or Ignored.

    The published tars are read as they are. With Apache Beam each is a unit of work.
    """

    BUILDER_CONFIGS = [GoogleLandmarksV2Config(name=part, part=part) for part in gldv2_files.TABLES]
    HOMEPAGE = "https://github.com/cvdfoundation/google-landmark"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    The folder must hold the published csv files, and train/, index/ or test/ with either the tars
    images_*.tar (and beside them, to have them checked, md5.images_*.txt) or the unpacked images
    a/b/c/<id>.jpg. Without a folder all files are downloaded.
    """

    def _features(self) -> dict[str, Any]:
        features = super()._features()
        if self.builder_config.part == "test":
            text = tfds.features.Text()
            features["landmarks"] = tfds.features.Sequence(np.int64)
            features["relevant"] = tfds.features.Sequence(text)
            features |= {"recognition_usage": text, "retrieval_usage": text}
        return features

    def _part(self) -> tuple[str, tuple[str, ...]]:
        """Folder of the images, and names of the csv files."""
        variant = self.builder_config.part
        return variant.removesuffix("_clean"), gldv2_files.TABLES[variant]

    def find(self, root: pathlib.Path) -> Source:
        """The csv files and archives."""
        return gldv2_files.in_folder(root, *self._part())

    def _fetch(self, dl_manager: tfds.download.DownloadManager) -> Source:
        return gldv2_files.download(dl_manager, *self._part())

    def _groups(self, source: Source) -> dict[str, Groups]:
        self._entries = self._entries_by_split(source.lists)
        self._in_archives = bool(source.archives)
        gldv2_files.verify_archives(source.archives.values())
        groups: dict[str, Groups] = {}
        for name, entries in self._entries.items():
            if self._in_archives:
                archives = source.archives.values() if entries() else ()
                groups[name] = [gldv2_files.TarItems(tar, entries) for tar, _ in archives]
            else:
                groups[name] = self._unpacked(source.folder, entries())
        return groups

    def _entries_by_split(self, tables: gldv2_files.Tables) -> dict[str, functools.partial]:
        """For each split what returns label and features by id, in this process or a worker."""
        variant, folder = self.builder_config.part, pathlib.Path(self.data_path)
        paths = [tables[name] for name in gldv2_files.TABLES[variant]]
        if variant == "index":
            return {"index": functools.partial(gldv2_files.index_entries, *paths)}
        if variant == "test":
            entries = functools.partial(gldv2_files.test_entries, *paths)
            gldv2_files.write_answers(folder, entries())
            return {"test": entries}
        read = gldv2_files.train_images if variant == "train" else gldv2_files.clean_images
        self._relabel(read(tables))
        path = folder / relabelling.FILE
        return {
            name: functools.partial(gldv2_files.train_entries, path, name)
            for name in reversed(relabelling.SPLITS)
        }

    def _unpacked(self, root: pathlib.Path, entries: dict[str, gldv2_files.Entry]) -> Groups:
        part, _ = self._part()
        return in_shards(
            Item(name, {"image": ImageFile(root, part, name, by_id)}, label, features)
            for name, (label, features) in entries.items()
        )

    def _absent(self, found: dict[str, set[str]]) -> dict[str, str]:
        if not self._in_archives:  # absent files were met and listed one by one
            return {}
        return {
            name: "in none of the archives"
            for split_name, entries in self._entries.items()
            for name in entries().keys() - found[split_name]
        }


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
