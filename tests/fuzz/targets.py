"""File readers, each as a function of the bytes of a file, and small whole files to begin with."""

import contextlib
import dataclasses
import io
import json
import pathlib
import pickle
import tarfile
import tempfile
import warnings
from collections.abc import Callable

import h5py
import numpy as np
from PIL import Image

from delg_jax.data import ground_truth, images
from delg_jax.data.listing import open_images
from delg_jax.data.tfds_builders import records, relabelling
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2_tasks
from delg_jax.features.formats import delf, hloc
from delg_jax.features.local_features import LocalFeatures
from delg_jax.models.weights.read import read_arrays
from delg_jax.sweeps import sweep_spec

_FEATURES = LocalFeatures(
    np.ones((2, 2), np.float32),
    np.ones(2, np.float32),
    np.ones(2, np.float32),
    np.ones((2, 4), np.float32),
    np.ones(2, bool),
)
_ENTRY = {"bbx": [1.0, 2, 30, 40.5], "easy": [0], "hard": [1], "junk": []}
_GROUND_TRUTH = {"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [_ENTRY]}
_SWEEP = {"grid": {"train.steps": [1, 2]}, "random": {"seed": {"integers": [0, 9]}}, "draws": 2}


@dataclasses.dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
      suffix: of the file.
      read: reads a file; may refuse it by a `UserError`.
      seeds: bytes of whole files.
    """

    suffix: str
    read: Callable[[pathlib.Path], object]
    seeds: Callable[[], list[bytes]]


def run(target: Target, path: pathlib.Path, data: bytes) -> None:
    """Lets a target read bytes; anything but a result or a refusal goes through."""
    path.write_bytes(data)
    refusals = contextlib.suppress(UserError, images.BadImageError)
    with refusals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.read(path)


def _image(path: pathlib.Path) -> None:
    images.decode(path.read_bytes(), max_pixels=1_000_000)


def _images() -> list[bytes]:
    return [
        _bytes(lambda file, form=form: Image.new("RGB", (9, 7), "red").save(file, form))
        for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM")
    ]


def _bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _written(write: Callable[[pathlib.Path], object], suffix: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"seed{suffix}"
        write(path)
        return [path.read_bytes()]


def _write_hloc(path: pathlib.Path) -> None:
    with hloc.writing(path) as writer:
        writer.write("a.jpg", _FEATURES)
        writer.write_global("a.jpg", _FEATURES.descriptors[0])


def _read_hloc(path: pathlib.Path) -> None:
    with hloc.reading(path) as reader:
        reader.read_local("a.jpg")
        reader.read_global("a.jpg")


def _write_keras(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        file["conv1/conv1/kernel:0"] = np.ones((1, 1, 2, 3), np.float32)


def _write_npz(path: pathlib.Path) -> None:
    np.savez(path, **{"conv1/weights": np.ones((1, 1, 2, 3), np.float32)})


def _tars() -> list[bytes]:
    def write(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in ("a.jpg", "b" * 120 + ".png"):
                member = tarfile.TarInfo(name)
                member.size = 9
                archive.addfile(member, io.BytesIO(bytes(9)))

    return [_bytes(write)]


def _tar(path: pathlib.Path) -> None:
    source = open_images(str(path))
    for number in range(len(source)):
        with contextlib.suppress(OSError):  # such an image is skipped
            source.read(number)


def _weights(path: pathlib.Path) -> None:
    read_arrays(str(path))


_PICKLES = [pickle.dumps(_GROUND_TRUTH, protocol) for protocol in (0, 2, 5)]
_SOLUTION = b"id,landmarks,Usage\nabc,12 7,Public\nabd,,Private\n"
_SOLUTIONS = {"Public": {"abc": []}, "Private": {}, "Ignored": {}}

TARGETS = {
    "image": Target(".jpg", _image, _images),
    "gnd_pickle": Target(".pkl", ground_truth.read, lambda: _PICKLES),
    "gnd_json": Target(".json", ground_truth.read, lambda: [json.dumps(_GROUND_TRUTH).encode()]),
    "tar": Target(".tar", _tar, _tars),
    "list": Target(".txt", lambda path: open_images(str(path)), lambda: [b"a.jpg\nb.jpg\n"]),
    "solution": Target(
        ".csv", lambda path: gldv2_tasks.read_solution(path, "recognition"), lambda: [_SOLUTION]
    ),
    "submission": Target(
        ".csv",
        lambda path: gldv2_tasks.read_predictions(path, "recognition", _SOLUTIONS),
        lambda: [b"id,landmarks\nabc,12 0.5\n"],
    ),
    "records": Target(
        ".csv",
        lambda path: records.read(path.parent, path.stem),
        lambda: [b"name,label,height,width\nabc,-1,20,30\n"],
    ),
    "split": Target(
        ".csv", relabelling.read, lambda: [b"id,landmark_id,label,split\nabc,12,0,train\n"]
    ),
    "sweep": Target(
        ".json",
        lambda path: sweep_spec.read([str(path)], {}),
        lambda: [json.dumps(_SWEEP).encode()],
    ),
    "delg_local": Target(
        ".delg_local",
        delf.read_local,
        lambda: _written(lambda path: delf.write_local(path, _FEATURES), ".delg_local"),
    ),
    "delg_global": Target(
        ".delg_global",
        delf.read_global,
        lambda: _written(lambda p: delf.write_global(p, _FEATURES.scores), ".delg_global"),
    ),
    "hloc": Target(".h5", _read_hloc, lambda: _written(_write_hloc, ".h5")),
    "npz": Target(".npz", _weights, lambda: _written(_write_npz, ".npz")),
    "keras": Target(".h5", _weights, lambda: _written(_write_keras, ".h5")),
}
