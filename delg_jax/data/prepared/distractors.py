"""The distractors of Revisited Oxford and Paris: images that answer no query."""

import pathlib

from delg_jax import text_files
from delg_jax.data.prepared.builder import Groups, ImageSetBuilder
from delg_jax.data.prepared.image_files import ImageFile, inside
from delg_jax.data.prepared.manifest import Source
from delg_jax.data.prepared.shard import Item, in_shards
from delg_jax.errors import UserError

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
            Item(name, {"image": ImageFile(source.root, "jpg", name, inside)}) for name in first
        ]
        return {"database": in_shards(items)}
