"""TFDS builder of procedurally rendered landmarks: a data set without a download."""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from delg_jax.data.sources import DataSettings, RetrievalData, TrainingData
from delg_jax.data.synthetic.camera import homography_between, transform
from delg_jax.data.synthetic.facade import build_facade
from delg_jax.data.synthetic.render import render_view
from delg_jax.data.synthetic.street import build_street
from delg_jax.data.synthetic.world import SPLITS, generator, landmark_name, shots, world_size
from delg_jax.data.tfds_builders.builder import prepare_once, tfds_folder
from delg_jax.errors import UserError
from delg_jax.file_stamps import stamp_of_all

JPEG_QUALITY = 92


@dataclasses.dataclass
class SyntheticConfig(tfds.core.BuilderConfig):
    """Names a world.

    Attributes:
      size: `tiny` (for tests) or `small`.
      seed: seed of the world, not negative.
    """

    size: str = "small"
    seed: int = 0


class SyntheticLandmarks(tfds.core.GeneratorBasedBuilder):
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
            if facade is None or shot.landmark != landmark:
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


def prepare(size: str, seed: int, tfds_dir: str) -> SyntheticLandmarks:
    """Renders a world unless it is there already.

    Args:
      size: `tiny` or `small`.
      seed: seed of the world, not negative.
      tfds_dir: folder of prepared data; "" for the default of TFDS.

    Returns:
      The builder, prepared.

    Raises:
      UserError: if the size is unknown, the seed is negative, or another version of the program
        rendered what is there.
    """
    world_size(size)
    if seed < 0:
        raise UserError("config.data.synthetic.seed", seed, "must not be negative")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a log every tick would be a line
    builder = SyntheticLandmarks(
        config=SyntheticConfig(name=f"{size}_{seed}", size=size, seed=seed),
        data_dir=tfds_folder(tfds_dir),
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


JUNK_VISIBLE = 0.25
EASY_VISIBLE = 0.6
EASY_SCALE = 1.8
EASY_TILT = 1.3


def scale_and_tilt(homography: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """Measures how a homography changes the neighbourhood of a point.

    Args:
      homography: float [3, 3].
      point: float [2], (x, y).

    Returns:
      Change of scale (above 1 enlarges) and transition tilt (at least 1); NaN where the point
      does not come out in front of the camera.
    """
    around = point[None, :] + np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)])
    left, right, upper, lower = transform(homography, around)
    jacobian = np.stack([right - left, lower - upper], axis=-1)
    if np.isnan(jacobian).any():
        return float("nan"), float("nan")
    large, small = np.linalg.svd(jacobian, compute_uv=False)
    return float(np.sqrt(large * small)), float(large / max(small, 1e-12))


def relevance(
    query: np.ndarray, query_box: np.ndarray, index: np.ndarray, index_visible: float
) -> str:
    """Tells how an index image of the query's own landmark counts.

    Args:
      query: float [3, 3], homography of the query view: facade pixels to image pixels.
      query_box: float [4], (x1, y1, x2, y2) in pixels.
      index: float [3, 3], homography of the index view.
      index_visible: visible share of the facade in the index view.

    Returns:
      `easy`, `hard` or `junk`.
    """
    if index_visible < JUNK_VISIBLE:
        return "junk"
    middle = (query_box[:2] + query_box[2:]) / 2
    scale, tilt = scale_and_tilt(homography_between(query, index), middle)
    near = 1 / EASY_SCALE <= scale <= EASY_SCALE
    return "easy" if index_visible >= EASY_VISIBLE and near and tilt <= EASY_TILT else "hard"


class SyntheticSource:
    """Images of a split in random access; all else is in memory. It can be pickled.

    Args:
      builder: a prepared `SyntheticLandmarks`.
      split: `train`, `validation`, `index` or `query`.

    Attributes:
      names: list of N names.
      labels: int64 [N], landmark ids.
      homographies: float32 [N, 3, 3], facade pixels to image pixels.
      visible: float32 [N], visible share of the facade.
      boxes: float32 [N, 4], (x1, y1, x2, y2) around what is seen of the facade, pixels.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self._records = builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        self._stamp = stamp_of_all(pathlib.Path(builder.data_path).glob(f"*-{split}.*"))
        records = list(self._records)
        self.names = [record["name"].decode() for record in records]
        self.labels = np.array([record["label"] for record in records], np.int64)
        self.homographies = np.stack([record["homography"] for record in records])
        self.visible = np.array([record["visible"] for record in records], np.float32)
        self.boxes = np.stack([record["bbx"] for record in records])

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Returns the encoded image (JPEG) with an index from 0 to N - 1."""
        return self._records[index]["image"]

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Size and times of the files of the split, int64 [n, 3], the same for all images."""
        return np.tile(self._stamp, (len(indices), 1))


def source(builder: tfds.core.DatasetBuilder, split: str) -> SyntheticSource:
    """Returns random access to a split of a prepared builder."""
    return SyntheticSource(builder, split)


def ground_truth(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """Returns the ground truth of index and query, laid out as Revisited Oxford's.

    Args:
      builder: a prepared `SyntheticLandmarks`.

    Returns:
      A dict of plain Python values: `imlist` (names of the index split in its order), `qimlist`
      (of the query split), and `gnd`, a list with a dict for each query: `bbx` (x1, y1, x2, y2 in
      pixels), and `easy`, `hard`, `junk` (positions in imlist).
    """
    index, query = source(builder, "index"), source(builder, "query")
    gnd = []
    for position in range(len(query)):
        entry = {"bbx": query.boxes[position].tolist(), "easy": [], "hard": [], "junk": []}
        for candidate in np.flatnonzero(index.labels == query.labels[position]).tolist():
            kind = relevance(
                query.homographies[position],
                query.boxes[position],
                index.homographies[candidate],
                float(index.visible[candidate]),
            )
            entry[kind].append(candidate)
        gnd.append(entry)
    return {"imlist": index.names, "qimlist": query.names, "gnd": gnd}


def training(data: DataSettings) -> TrainingData:
    """Opens the landmarks to learn from, rendered first if need be.

    Args:
      data: which data set it is.

    Returns:
      TrainingData; its sources are `SyntheticSource`.

    Raises:
      UserError: if `config.data.synthetic` names no world.
    """
    builder = prepare(data.synthetic_size, data.synthetic_seed, data.tfds_dir)
    count = world_size(data.synthetic_size).train
    return TrainingData(
        train=source(builder, "train"),
        validation=source(builder, "validation"),
        classes=[landmark_name(landmark) for landmark in range(count)],
    )


def retrieval(data: DataSettings) -> RetrievalData:
    """Opens the landmarks to search, rendered first if need be.

    Args:
      data: which data set it is.

    Returns:
      RetrievalData; its sources are `SyntheticSource`.

    Raises:
      UserError: if `config.data.synthetic` names no world.
    """
    builder = prepare(data.synthetic_size, data.synthetic_seed, data.tfds_dir)
    return RetrievalData(
        database=source(builder, "index"),
        queries=source(builder, "query"),
        ground_truth=ground_truth(builder)["gnd"],
    )
