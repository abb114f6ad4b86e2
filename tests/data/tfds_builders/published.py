"""Small published data sets: drawn photographs and csv files, in the layouts of the originals."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import default
from delg_jax.data import open_retrieval, open_training
from delg_jax.errors import UserError
from tests.photographs import draw, make_revisited


def jpeg(seed: int, height: int = 20, width: int = 24) -> bytes:
    """The bytes of a drawn photograph."""
    buffer = io.BytesIO()
    Image.fromarray(draw(seed, height, width)).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def image_id(number: int) -> str:
    """An id like the published ones; the first characters vary."""
    return hashlib.md5(str(number).encode()).hexdigest()[:16]


def place(folder: Path, name: str, data: bytes) -> Path:
    """Writes an image as `a/b/c/abc….jpg`."""
    path = folder.joinpath(*name[:3], f"{name}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_gldv1(root: Path, counts: tuple[int, ...] = (5, 1, 10)) -> dict[str, int]:
    """Landmarks 7, 17, 27 ... with so many images each; returns landmark by id."""
    landmarks = [10 * number + 7 for number, count in enumerate(counts) for _ in range(count)]
    images = {image_id(number): landmark for number, landmark in enumerate(landmarks)}
    root.mkdir(parents=True, exist_ok=True)
    rows = [f"{name},http://x/{name}.jpg,{landmark}" for name, landmark in images.items()]
    (root / "train.csv").write_text("\n".join(["id,url,landmark_id", *rows]) + "\n")
    for number, name in enumerate(images):
        place(root / "train", name, jpeg(number))
    return images


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Writes an archive and its MD5 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    path.with_name(f"md5.{path.stem}.txt").write_text(f"{digest}  {path.name}\n")


def make_gldv2(root: Path, tars: int = 3) -> dict[str, int]:
    """All parts, in `tars` archives each or, for 0, unpacked; returns landmark by training id."""
    images = make_gldv1(root)
    clean: dict[int, list[str]] = {}
    for name, landmark in list(images.items())[2:]:
        clean.setdefault(landmark, []).append(name)
    rows = [f"{landmark},{' '.join(names)}" for landmark, names in clean.items()]
    (root / "train_clean.csv").write_text("\n".join(["landmark_id,images", *rows]) + "\n")
    index, test = [image_id(100 + n) for n in range(4)], [image_id(200 + n) for n in range(4)]
    _table(root / "index.csv", "id", index)
    landmarks = [f"{name},{7 + 10 * n}" for n, name in enumerate(index[:3])]
    _table(root / "index_image_to_landmark.csv", "id,landmark_id", landmarks)
    _table(root / "test.csv", "id", test)
    solution = [f"{test[0]},7 17,Public", f"{test[1]},,Private", f"{test[2]},27,Private"]
    _table(root / "recognition_solution_v2.1.csv", "id,landmarks,Usage", solution)
    solution = [
        f"{test[0]},{index[2]},Public",
        f"{test[1]},{index[3]} {index[0]},Private",
        f"{test[2]},None,Ignored",
    ]
    _table(root / "retrieval_solution_v2.1.csv", "id,images,Usage", solution)
    for number, name in enumerate(index + test):
        place(root / ("index" if name in index else "test"), name, jpeg(300 + number))
    if tars:
        for part in ("train", "index", "test"):
            pack(root / part, tars)
    return images


def pack(folder: Path, tars: int) -> None:
    """Moves unpacked images into archives."""
    files = sorted(folder.glob("*/*/*/*.jpg"))
    for number in range(tars):
        chosen = files[number::tars]
        members = {f"./{p.relative_to(folder).as_posix()}": p.read_bytes() for p in chosen}
        write_tar(folder / f"images_{number:03d}.tar", members)
    for path in files:
        path.unlink()


def make_oxford(root: Path, name: str = "gnd_roxford5k") -> dict:
    """A revisited data set under its published name; returns the ground truth."""
    make_revisited(root, places=3)
    (root / "gnd_drawn.json").rename(root / f"{name}.json")
    return json.loads((root / f"{name}.json").read_text())


def make_distractors(root: Path, count: int = 3) -> list[str]:
    """R1M with so many images; returns their names."""
    names = [f"{number % 2:04d}/d{number}" for number in range(count)]
    for number, name in enumerate(names):
        path = root / "jpg" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(400 + number))
    (root / "revisitop1m.txt").write_text("\n".join(names) + "\n")
    return names


def settings(root: Path, tfds_dir: Path, name: str, **fields):
    """`config.data` of a prepared data set."""
    data = default.get_config().data
    data.name, data.root, data.tfds_dir = name, str(root), str(tfds_dir)
    data.update(fields)
    return data


def contents(builder: tfds.core.DatasetBuilder) -> dict[str, list[str]]:
    """The examples of all splits and the csv files, in order.

    Not the bytes of the records: protocol buffers order the features of an example anew in each
    process.
    """
    skip = {"image": tfds.decode.SkipDecoding()}
    found = {
        split: [
            repr(sorted(record.items())) for record in builder.as_data_source(split, decoders=skip)
        ]
        for split in builder.info.splits
    }
    tables = sorted(Path(builder.data_path).glob("*.csv"))
    return {**found, **{path.name: path.read_text().splitlines() for path in tables}}


def labels(source) -> dict[str, int]:
    """Label by name of the images of a source."""
    return dict(zip(source.names, np.asarray(source.labels).tolist(), strict=True))


def opened(root, tmp_path, name="gldv1", **fields):
    """What `config.data` opens, prepared under `tmp_path/tfds`."""
    retrieval = name.startswith("revisited")
    data = settings(root, tmp_path / "tfds", name, **fields)
    return (open_retrieval if retrieval else open_training)(data)


def refused(root, tmp_path, name="gldv1", field="root", **fields):
    """The rule of the error by which the data are refused."""
    with pytest.raises(UserError) as caught:
        opened(root, tmp_path, name, **fields)
    assert caught.value.subject == f"config.data.{field}"
    assert caught.value.value == (fields[field] if field in fields else str(root))
    return caught.value.rule


def prepared_folder(tmp_path):
    """The only folder of records."""
    (path,) = (tmp_path / "tfds").rglob("manifest.json")
    return path.parent


def image_path(root, number, part="train"):
    """Where the image of a number lies, unpacked."""
    name = image_id(number)
    return (root / part).joinpath(*name[:3], f"{name}.jpg")


def edit(path, function):
    """Changes a file, and its time even where the clock is coarse."""
    path.write_bytes(function(path.read_bytes()))
    os.utime(path, ns=(10**18, 10**18))


def _table(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n")
