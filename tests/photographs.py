"""Drawn photographs as files, in the layouts of the data sets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def draw(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """A textured image uint8 [height, width, 3]; each seed gives other shapes and colours."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(60, 200, 3)[None, None, :], np.float64)
    for _ in range(25):
        top, left = rng.integers(height - 4), rng.integers(width - 4)
        tall, wide = rng.integers(4, height // 2), rng.integers(4, width // 2)
        picture[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    picture += rng.normal(0, 6, (height, width, 1))
    return picture.clip(0, 255).astype(np.uint8)


def save(path: Path, picture: np.ndarray) -> None:
    """Writes an image; JPEGs have quality 95."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=95)


def truncate(path: Path) -> None:
    """Cuts a file in half, as an interrupted download does."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def make_folder(root: Path, classes: int = 4, train: int = 6, validation: int = 3) -> Path:
    """A `folder` data set whose classes differ in colour."""
    for label in range(classes):
        tint = np.random.default_rng(label).integers(0, 256, (1, 1, 3))
        for split, count in (("train", train), ("validation", validation)):
            for number in range(count):
                picture = draw(1000 * label + number + 500 * (split == "validation"))
                picture = (0.4 * picture + 0.6 * tint).astype(np.uint8)
                save(root / split / f"class_{label}" / f"{number}.jpg", picture)
    return root


def make_revisited(root: Path, places: int = 4) -> Path:
    """A database with two views and one query of each place; the query is the first view.

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
        entries.append({"bbx": [0, 0, 112, 96], "easy": [2 * place], "hard": hard, "junk": []})
    entries[-1] |= {"hard": [], "junk": entries[-1]["hard"]}
    content = {"imlist": images, "qimlist": queries, "gnd": entries}
    (root / "gnd_drawn.json").write_text(json.dumps(content))
    return root
