"""TFDS builder of procedurally rendered landmarks: a data set without a download."""

import dataclasses
import sys
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from delg_jax.data.embedded.facade import build_facade
from delg_jax.data.embedded.render import render_view
from delg_jax.data.embedded.seeds import generator
from delg_jax.data.embedded.street import build_street
from delg_jax.data.embedded.world import SPLITS, shots, world_size
from delg_jax.data.once import prepare_once
from delg_jax.errors import UserError

JPEG_QUALITY = 92


@dataclasses.dataclass
class EmbeddedConfig(tfds.core.BuilderConfig):
    """Names a world.

    Attributes:
      size: `tiny` (for tests) or `small`.
      seed: seed of the world, not negative.
    """

    size: str = "small"
    seed: int = 0


class EmbeddedLandmarks(tfds.core.GeneratorBasedBuilder):
    """Photographs of rendered landmarks, with the homography of each.

    The splits are `train` and `validation` (the same landmarks, other views), `index` and `query`
    (other landmarks). Labels are landmark ids, all different between training and evaluation;
    those of train and validation are 0 to C - 1. Every split has all features.
    """

    VERSION = tfds.core.Version("1.0.0")  # raised whenever the same seed shows other views
    RELEASE_NOTES = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Rendered landmarks with true homographies for instance retrieval.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "name": tfds.features.Text(),
                    "label": np.int64,
                    "homography": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
                    "visible": np.float32,
                    "bbx": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                }
            ),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        seed, size = self.builder_config.seed, world_size(self.builder_config.size)
        street = build_street(seed)
        landmark, facade = -1, None
        for shot in shots(size, split):
            if shot.landmark != landmark:
                landmark = shot.landmark
                facade = build_facade(seed, landmark, shot.family, size.facade_side)
            rng = generator(seed, "view", landmark, shot.view)
            photograph = render_view(rng, facade, street, shot.kind, size.image_side)
            yield (
                shot.name,
                {
                    "image": _encode(photograph.image),
                    "name": shot.name,
                    "label": landmark,
                    "homography": photograph.homography.astype(np.float32),
                    "visible": photograph.visible,
                    "bbx": photograph.box.astype(np.float32),
                },
            )


def _encode(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def prepare(size: str, seed: int, data_dir: str) -> EmbeddedLandmarks:
    """Renders a world unless it is there already.

    Args:
      size: `tiny` or `small`.
      seed: seed of the world, not negative.
      data_dir: folder of prepared TFDS data; "" means TFDS's own default.

    Returns:
      The builder, prepared.

    Raises:
      UserError: if the size is unknown, the seed is negative, or another version of the program
        rendered what is there.
    """
    world_size(size)
    if seed < 0:
        raise UserError("config.data.embedded.seed", seed, "must not be negative")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a log every tick would be a line
    builder = EmbeddedLandmarks(
        config=EmbeddedConfig(name=f"{size}_{seed}", size=size, seed=seed),
        data_dir=data_dir or None,
        file_format="array_record",
    )
    prepare_once(builder)
    for split in SPLITS:
        expected = len(shots(world_size(size), split))
        found = builder.info.splits[split].num_examples
        if found != expected:
            rule = f"has {found} images in {split}, not {expected}: another version of the program "
            rule += "rendered it; delete the folder, and it is rendered again"
            raise UserError("prepared data", str(builder.data_path), rule)
    return builder
