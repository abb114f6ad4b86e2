"""Pairs of Google Landmarks images that show the same landmark, or do not."""

import pathlib
from typing import Any

import tensorflow_datasets as tfds

from delg_jax.data.tfds_builders import tables
from delg_jax.data.tfds_builders.builder import Groups, ImageSetBuilder
from delg_jax.data.tfds_builders.manifest import ImageFile, Source, by_id
from delg_jax.data.tfds_builders.records import Item, in_shards

IMAGES = ("image1", "image2")
_LIST = "pairs.csv"


class LandmarkPairs(ImageSetBuilder):
    """Image pairs to measure local features by (section 4.1, Table 1 of DELG).

    The one split, `test`, has an example for each line of the list, in order: two images with
    their ids and the label, 1 if both show the same landmark and 0 if not. The name of an example
    is both ids with a space between them.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    The folder must hold pairs.csv with the columns image1, image2 (ids) and label (1 or 0), and
    the images as images/<id>.jpg or images/a/b/c/<id>.jpg by the first characters of the id.
    """

    def _features(self) -> dict[str, Any]:
        image = {name: tfds.features.Image(shape=(None, None, 3)) for name in IMAGES}
        return {**image, **{f"{name}_id": tfds.features.Text() for name in IMAGES}}

    def find(self, root: pathlib.Path) -> Source:
        """The list."""
        return Source(root, {_LIST: root / _LIST})

    def _groups(self, source: Source) -> dict[str, Groups]:
        items: dict[str, Item] = {}
        for row in tables.read(source.lists[_LIST], (*IMAGES, "label")):
            if row.text("label") not in ("0", "1"):
                raise row.error(f"label must be 0 or 1, not {row.text('label')!r}")
            ids = {name: row.name(name) for name in IMAGES}
            name, reverse = (" ".join(side) for side in (ids.values(), reversed(ids.values())))
            if name in items:
                raise row.error(f"the pair {name} occurs twice")
            label = row.integer("label")
            if name == reverse and not label:
                raise row.error(f"the label of {ids['image1']} and itself must be 1")
            if reverse in items and items[reverse].label != label:
                raise row.error(f"the label must be that of the pair {reverse}")
            load = {n: ImageFile(source.root, "images", i, by_id) for n, i in ids.items()}
            features = {f"{n}_id": i for n, i in ids.items()}
            items[name] = Item(name, load, label, features)
        return {"test": in_shards(items.values())}
