"""Base of the builders of labelled images without a split of their own."""

import pathlib
from collections.abc import Callable, Iterable

from delg_jax.data.prepared import split
from delg_jax.data.prepared.builder import Groups, ImageSetBuilder
from delg_jax.data.prepared.image_files import ImageFile
from delg_jax.data.prepared.shard import Item, in_shards


class LabelledBuilder(ImageSetBuilder):
    """Splits the images of each class and leaves `relabelling.csv` beside the records."""

    MAY_BE_EMPTY = ("validation",)  # with validation_share=0, or where classes have one image

    def _relabel(self, images: Iterable[tuple[str, str]]) -> list[split.Labelled]:
        """Splits images, given by name and class, and writes `relabelling.csv`."""
        config = self.builder_config
        labelled = split.relabel(images, config.split_seed, config.validation_share)
        split.write(pathlib.Path(self.data_path), labelled)
        return labelled

    def _file_groups(
        self, labelled: list[split.Labelled], image_file: Callable[[str], ImageFile]
    ) -> dict[str, Groups]:
        """Shards of images that are files, which `image_file` gives by name."""
        groups = {}
        for name in reversed(split.SPLITS):
            images = [image for image in labelled if image.split == name]
            groups[name] = in_shards(
                Item(image.name, {"image": image_file(image.name)}, image.label) for image in images
            )
        return groups
