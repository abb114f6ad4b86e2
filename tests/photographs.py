"""Drawn photographs as files, in the layouts of the data sets, and tiny networks for them."""

import json
from pathlib import Path

import ml_collections
import numpy as np
from PIL import Image

from configs import default


def draw(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """A textured picture uint8 [height, width, 3]; another seed gives other shapes and colours."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(60, 200, 3)[None, None, :], np.float64)
    for _ in range(25):
        top, left = rng.integers(height - 4), rng.integers(width - 4)
        tall, wide = rng.integers(4, height // 2), rng.integers(4, width // 2)
        picture[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    picture += rng.normal(0, 6, (height, width, 1))
    return picture.clip(0, 255).astype(np.uint8)


def save(path: Path, picture: np.ndarray) -> None:
    """Writes a picture, as JPEG of the best quality where the name asks for JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=95)


def truncate(path: Path) -> None:
    """Cuts a file in half, as an interrupted download does."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def make_folder(root: Path, classes: int = 4, train: int = 6, validation: int = 3) -> Path:
    """A folder data set whose classes differ in colour."""
    for label in range(classes):
        tint = np.random.default_rng(label).integers(0, 256, (1, 1, 3))
        for split, count in (("train", train), ("validation", validation)):
            for number in range(count):
                picture = draw(1000 * label + number + 500 * (split == "validation"))
                picture = (0.4 * picture + 0.6 * tint).astype(np.uint8)
                save(root / split / f"class_{label}" / f"{number}.jpg", picture)
    return root


def make_revisited(root: Path, places: int = 4) -> Path:
    """A database of two views a place and one query each; the query is the first view.

    The first view is `easy` and the second, a crop of it, `hard`; for the last query there are no
    hard positives.
    """
    images, queries, entries = [], [], []
    for place in range(places):
        picture = draw(place, 96, 112)
        for view, pixels in (("near", picture), ("far", picture[8:88, 8:104])):
            images.append(f"place{place}_{view}")
            save(root / "jpg" / f"{images[-1]}.jpg", pixels)
        queries.append(f"query{place}")
        save(root / "jpg" / f"{queries[-1]}.jpg", picture)
        hard = [2 * place + 1]
        entries.append(
            {"bbx": [0, 0, 112, 96], "easy": [2 * place], "hard": hard, "junk": []}
        )
    entries[-1] |= {"hard": [], "junk": entries[-1]["hard"]}
    content = {"imlist": images, "qimlist": queries, "gnd": entries}
    (root / "gnd_drawn.json").write_text(json.dumps(content))
    return root


def training_config(root: Path) -> ml_collections.ConfigDict:
    """Six steps of the tiny network on a folder data set, all heads."""
    config = tiny_config()
    config.data.name, config.data.root = "folder", str(root)
    config.data.image_size = 64
    config.data.crop_area = (0.5, 1.0)
    config.data.workers = 0
    config.train.steps = 6
    config.train.batch_size = 8
    config.train.learning_rate = 0.01
    config.train.log_every = 1
    config.train.eval_every = 3
    config.train.checkpoint_every = 3
    return config.lock()


def retrieval_config(root: Path) -> ml_collections.ConfigDict:
    """The tiny network, two scales, on a data set of the revisited layout."""
    config = tiny_config()
    config.data.name, config.data.root = "revisited", str(root)
    config.data.workers = 1
    config.model.conv4_stride, config.model.convention = 16, "torchvision"
    config.extract.local_scales = config.extract.global_scales = (1.0, 1.4142135)
    config.extract.max_features = 30
    config.extract.batch_pixels = 65_536
    config.extract.chunk_images = 3
    config.rerank.sp.hypotheses = 100
    config.rerank.sp.short_list = 4
    config.rerank.mds.dim = 4
    return config.lock()


def tiny_config() -> ml_collections.ConfigDict:
    """The default with the smallest network."""
    config = default.get_config()
    config.model.backbone = "tiny"
    config.model.global_dim = 16
    config.model.attention_dim = 8
    config.model.local_dim = 8
    return config
