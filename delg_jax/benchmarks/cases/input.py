"""Training input: from a JPEG file to a random crop."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from delg_jax.benchmarks.case import Case, Comparison, Implementation, import_peer
from delg_jax.data.images import EncodedImage
from delg_jax.data.pipeline import CropSettings, random_crop

_AREA, _ASPECT = (0.08, 1.0), (0.75, 4 / 3)  # section 4.1
_QUALITY = 85
_BLUR = 2.0  # pixels; makes a JPEG of noise about as large as that of a photograph


def compare(rng: np.random.Generator, files: int, height: int, width: int, size: int) -> Comparison:
    """Compares readers on random JPEGs of one shape; see `compare_files`."""
    return compare_files([_jpeg(rng, height, width) for _ in range(files)], size)


def compare_files(files: Sequence[bytes], size: int) -> Comparison:
    """Compares readers on the same files, each in one thread.

    Args:
      files: encoded JPEGs.
      size: side of the crops, pixels.

    Returns:
      The comparison, per image.
    """

    def implementation(name: str, run: Callable[[], Any]) -> Implementation:
        return Implementation(name, run, len(files))

    def decode() -> None:
        for data in files:
            EncodedImage(data).decode()

    boxes = np.array([box(data, number) for number, data in enumerate(files)], np.int32)
    return Comparison(
        "image",
        implementation(
            "decode as large as needed, crop, resize", _crops(files, size, reduced=True)
        ),
        {
            "tf.data": lambda: implementation(
                "tf.data: decode the crop, resize", _tf(files, boxes, size)
            ),
            "torch": lambda: implementation(
                "PyTorch DataLoader: Pillow decodes, crops, resizes", _torch(files, boxes, size)
            ),
        },
        (
            implementation("decode, crop, resize", _crops(files, size, reduced=False)),
            implementation("decode", decode),
        ),
    )


def box(data: bytes, number: int) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of a random box, with an area as in `random_crop`."""
    rng = np.random.default_rng(number)
    height, width = EncodedImage(data).shape
    side = np.sqrt(rng.uniform(*_AREA))
    rows, columns = max(1, int(height * side)), max(1, int(width * side))
    return (
        int(rng.integers(height - rows + 1)),
        int(rng.integers(width - columns + 1)),
        rows,
        columns,
    )


def _crops(files: Sequence[bytes], size: int, reduced: bool) -> Callable[[], None]:
    settings = CropSettings(size, _AREA, _ASPECT, flip=True, reduced=reduced)

    def run() -> None:
        for number, data in enumerate(files):
            random_crop(EncodedImage(data), settings, np.random.default_rng(number))

    return run


def _tf(files: Sequence[bytes], boxes: np.ndarray, size: int) -> Callable[[], int]:
    """tf.data, which decodes only the box."""
    tf = import_peer("tensorflow", "tensorflow-cpu")

    def read(data: Any, box: Any) -> Any:
        pixels = tf.image.decode_and_crop_jpeg(data, box, channels=3)
        resized = tf.image.resize(pixels, (size, size), antialias=True)
        return tf.cast(tf.round(resized), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.Dataset.from_tensor_slices((list(files), boxes))
    dataset = dataset.map(read, num_parallel_calls=1).with_options(options)

    return lambda: sum(1 for _ in dataset)


def _torch(files: Sequence[bytes], boxes: np.ndarray, size: int) -> Callable[[], int]:
    """A DataLoader that does the work of torchvision's RandomResizedCrop with Pillow."""
    data = import_peer("torch.utils.data", "torch")

    class Crops:
        """One crop of each file."""

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> np.ndarray:
            top, left, rows, columns = boxes[number].tolist()
            with Image.open(io.BytesIO(files[number])) as image:
                part = image.convert("RGB").crop((left, top, left + columns, top + rows))
            return np.array(part.resize((size, size), Image.Resampling.BILINEAR))

    loader = data.DataLoader(Crops(), batch_size=16, num_workers=0)

    return lambda: sum(len(crops) for crops in loader)


def _jpeg(rng: np.random.Generator, height: int, width: int) -> bytes:
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    file = io.BytesIO()
    noise.filter(ImageFilter.GaussianBlur(_BLUR)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


CASES = {
    "input": Case(
        compare,
        {
            "standard": {"files": 100, "height": 768, "width": 1024, "size": 512},
            "tiny": {"files": 2, "height": 48, "width": 64, "size": 16},
        },
    )
}
