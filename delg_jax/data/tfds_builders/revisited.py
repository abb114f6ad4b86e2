"""Revisited Oxford and Paris: images, query boxes and ground truth."""

import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delg_jax import text_files, workdir
from delg_jax.data import ground_truth, skips
from delg_jax.data.ground_truth import LISTS, find_image
from delg_jax.data.tfds_builders.builder import Groups, ImageSetBuilder
from delg_jax.data.tfds_builders.manifest import ImageFile, Source, inside
from delg_jax.data.tfds_builders.records import Item, in_shards
from delg_jax.errors import UserError

COPY = "ground_truth.json"
_INSTRUCTIONS = "The folder must hold {name}.pkl (or .json, of the same content) and jpg/*.jpg."


class RevisitedBuilder(ImageSetBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS
    """Base of both sets, which differ in the name of their ground truth.

    The splits are `query` and `database`, in the order of the ground truth. A query has its box
    `bbx` (x1, y1, x2, y2 in pixels) and `easy`, `hard` and `junk`, indices into the database;
    for a database image they are zeros and empty. `ground_truth.json` beside the records is exact,
    where the records have boxes in single precision.
    """

    HOMEPAGE = "http://cmp.felk.cvut.cz/revisitop/"
    GROUND_TRUTH = ""

    def _features(self) -> dict[str, Any]:
        lists = {name: tfds.features.Sequence(np.int64) for name in LISTS}
        box = tfds.features.Tensor(shape=(4,), dtype=np.float32)
        return {**super()._features(), "bbx": box, **lists}

    def find(self, root: pathlib.Path) -> Source:
        """The ground truth."""
        path = root / f"{self.GROUND_TRUTH}.pkl"
        if not path.is_file() and path.with_suffix(".json").is_file():
            path = path.with_suffix(".json")
        return Source(root, {path.name: path})

    def _groups(self, source: Source) -> dict[str, Groups]:
        (self._path,) = source.lists.values()
        content = ground_truth.read(self._path)
        workdir.write_json(pathlib.Path(self.data_path) / COPY, content)
        nothing = {"bbx": [0.0] * 4, **{name: [] for name in LISTS}}
        pairs = zip(content["qimlist"], content["gnd"], strict=True)
        return {
            "query": in_shards(_item(source.folder, name, entry) for name, entry in pairs),
            "database": in_shards(
                _item(source.folder, name, nothing) for name in content["imlist"]
            ),
        }

    def _report(self, skipped: dict[str, str]) -> None:
        """Refuses any skipped image: indices of the ground truth count on the place of each."""
        skips.report(pathlib.Path(self.data_path).parent, skipped, len(skipped))
        if skipped:
            name, reason = next(iter(sorted(skipped.items())))
            rule = f"names {len(skipped)} images that cannot be used, first {name} ({reason})"
            raise UserError("ground truth", str(self._path), rule)


class RevisitedOxford(RevisitedBuilder):
    """Revisited Oxford: 4,993 database images and 70 queries (Radenović et al., CVPR 2018)."""

    GROUND_TRUTH = "gnd_roxford5k"
    MANUAL_DOWNLOAD_INSTRUCTIONS = _INSTRUCTIONS.format(name=GROUND_TRUTH)


class RevisitedParis(RevisitedBuilder):
    """Revisited Paris: 6,322 database images and 70 queries (Radenović et al., CVPR 2018)."""

    GROUND_TRUTH = "gnd_rparis6k"
    MANUAL_DOWNLOAD_INSTRUCTIONS = _INSTRUCTIONS.format(name=GROUND_TRUTH)


def _listed(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Path of an image that a ground truth names, with or without its ending."""
    return inside(folder, find_image(folder, name) or name)


def _item(root: pathlib.Path, name: str, entry: dict[str, Any]) -> Item:
    features = {name: list(entry[name]) for name in LISTS}
    box = np.asarray(entry["bbx"], np.float32)
    image = ImageFile(root, "jpg", name, _listed)
    return Item(name, {"image": image}, features={"bbx": box, **features})


LIST = "revisitop1m.txt"


class RevisitedDistractors(ImageSetBuilder):
    """R1M: a million photographs that answer no query (Radenović et al., CVPR 2018).

    The one split, `database`, has the images in the order of the list. All labels are -1.
    """

    HOMEPAGE = "http://cmp.felk.cvut.cz/revisitop/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    The folder must hold {LIST}, a path relative to jpg/ in each line, and the images under jpg/.
    """

    def find(self, root: pathlib.Path) -> Source:
        """The list."""
        return Source(root, {LIST: root / LIST})

    def _groups(self, source: Source) -> dict[str, Groups]:
        path = source.lists[LIST]
        first: dict[str, int] = {}
        for number, name in text_files.lines(text_files.read(path, "list of images")):
            if first.setdefault(name, number) != number:
                rule = f"names {name!r}, as line {first[name]} does"
                raise UserError("list of images", f"{path}, line {number}", rule)
        items = [
            Item(name, {"image": ImageFile(source.folder, "jpg", name, inside)}) for name in first
        ]
        return {"database": in_shards(items)}
