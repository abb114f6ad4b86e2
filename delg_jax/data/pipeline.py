"""Input of training and validation: Grain decodes, crops and batches in worker processes.

Training crops are a random part of the image, distorted in aspect and resized to a square.
"""

import concurrent.futures
import dataclasses
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any, Protocol, Self

import grain
import ml_collections
import numpy as np
from PIL import Image

from delg_jax import system_errors
from delg_jax.data import images
from delg_jax.data.images import REDUCTIONS, EncodedImage, worker_count
from delg_jax.data.skips import SkipLog
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError

Batch = dict[str, np.ndarray]
Element = Mapping[str, Any]  # one image of a batch, its label and `valid`
Reader = Callable[[int, np.random.Generator], Element | None]
_STOPS = (signal.SIGTERM, signal.SIGINT)
_WATCH_SECONDS = 2.0
_LAST_BATCH_SECONDS = 2.0
_BATCHES_OF_WORKER = 8  # a worker takes as long to start; for fewer, threads are faster
_READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)  # in batches
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """What is drawn for each training image (section 4.1).

    Attributes:
      size: pixels, side of the square.
      area: range of the share of the image's area.
      aspect: range of width / height.
      flip: whether half of the images are mirrored.
      reduced: whether a large JPEG is decoded only as large as the box needs, which saves time.
    """

    size: int
    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: bool
    reduced: bool = False


class Batches(Iterator[Batch], Protocol):
    """Batches that workers decode ahead of use."""

    def close(self) -> None:
        """Ends the workers."""


def random_crop(
    image: EncodedImage, settings: CropSettings, rng: np.random.Generator
) -> np.ndarray:
    """Cuts a random box out of an image and resizes it, antialiased.

    Args:
      image: not yet decoded.
      settings: ranges of the box.
      rng: generator of all draws.

    Returns:
      uint8 [size, size, 3].

    Raises:
      BadImageError: if the image cannot be decoded.
    """
    box = _draw_box(*image.shape, settings, rng)
    square = _resize(image, box, settings)
    return square[:, ::-1] if settings.flip and rng.random() < 0.5 else square


def squash(image: EncodedImage, settings: CropSettings) -> np.ndarray:
    """Resizes a whole image to uint8 [size, size, 3], for validation; else as `random_crop`."""
    return _resize(image, (0, 0, image.shape[1], image.shape[0]), settings)


def _draw_box(height: int, width: int, settings: CropSettings, rng: np.random.Generator):
    """Left, top, right, bottom; the whole image if no drawn box fits in it."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*settings.area)
        aspect = math.exp(rng.uniform(*np.log(settings.aspect)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return int(left), int(top), int(left) + w, int(top) + h
    return 0, 0, width, height


def _resize(
    image: EncodedImage, box: tuple[int, int, int, int], settings: CropSettings
) -> np.ndarray:
    picture = image.to_pil(_reduction(box, settings.size) if settings.reduced else 1)
    (height, width), (columns, rows) = image.shape, picture.size
    part = (
        box[0] * columns / width,
        box[1] * rows / height,
        min(box[2] * columns / width, columns),
        min(box[3] * rows / height, rows),
    )
    square = (settings.size, settings.size)
    return np.array(picture.resize(square, Image.Resampling.BILINEAR, box=part))


def _reduction(box: tuple[int, int, int, int], size: int) -> int:
    """How many times smaller the box may be decoded and still has `size` pixels a side."""
    side = min(box[2] - box[0], box[3] - box[1])
    return max(n for n in REDUCTIONS if n == 1 or side >= n * size)


@dataclasses.dataclass(frozen=True)
class _Decode:
    """Reads one image as `size` x `size` pixels; None and a line in the log if it is bad."""

    source: ImageSource
    crop: CropSettings
    limits: tuple[int, int]
    skip_log: SkipLog | None

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> Element | None:
        try:
            image = images.EncodedImage(self.source.read(index), *self.limits)
            square = squash(image, self.crop) if rng is None else random_crop(image, self.crop, rng)
        except (images.BadImageError, OSError) as error:
            if system_errors.is_shortage(error):  # every image would be skipped
                raise
            if self.skip_log:
                self.skip_log.add(self.source.names[index], str(error))
            return None
        return {"image": square, "label": np.int32(self.source.labels[index])}


@dataclasses.dataclass(frozen=True)
class _Replacing:
    """Reads an image; a bad one is replaced by the next good one of the data set."""

    read: Reader
    count: int

    def __call__(self, index: int, rng: np.random.Generator) -> Element:
        for distance in range(self.count):
            element = self.read((index + distance) % self.count, rng)
            if element is not None:
                return element
        raise images.BadImageError("no image of the data set can be used")


@dataclasses.dataclass(frozen=True)
class _Padding:
    """Reads an image and adds `valid`; padding and bad images are black and not valid."""

    read: _Decode
    count: int

    def __call__(self, index: int) -> Element:
        element = self.read(index) if index < self.count else None
        if element is not None:
            return {**element, "valid": np.bool_(True)}
        size = self.read.crop.size
        black = np.zeros((size, size, 3), np.uint8)
        return {"image": black, "label": np.int32(0), "valid": np.bool_(False)}


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How images are read for training and validation; `config.data` has most of the names.

    Attributes:
      crop: what is drawn for each image; its fields in the configuration are `image_size`,
        `crop_area`, `crop_aspect`, `flip` and `reduced_decode`.
      min_side: pixels; smaller images are bad.
      max_pixels: larger images are bad.
      max_skipped: bad images allowed.
      workers: processes that decode, see `images.worker_count`.
    """

    crop: CropSettings
    min_side: int
    max_pixels: int
    max_skipped: int
    workers: int

    @classmethod
    def of(cls, data: ml_collections.ConfigDict) -> Self:
        """The settings of `config.data`; raises a UserError for a crop that is not possible."""
        if data.image_size < 1:
            raise UserError("config.data.image_size", data.image_size, "must be at least 1")
        area, aspect = tuple(data.crop_area), tuple(data.crop_aspect)
        _check_range("config.data.crop_area", area, 1.0)
        _check_range("config.data.crop_aspect", aspect, math.inf)
        crop = CropSettings(data.image_size, area, aspect, data.flip, data.reduced_decode)
        return cls(crop, data.min_side, data.max_pixels, data.max_skipped, data.workers)


def _decoder(source: ImageSource, settings: InputSettings, skip_log: SkipLog | None) -> "_Decode":
    limits = settings.min_side, settings.max_pixels
    return _Decode(source, settings.crop, limits, skip_log)


def _check_range(field: str, values: tuple, limit: float) -> None:
    """Raises a UserError unless `values` are two numbers with 0 < low <= high <= limit."""
    numbers = [isinstance(value, int | float) for value in values]
    if numbers != [True, True] or not 0 < values[0] <= values[1] <= limit:
        raise UserError(field, values, f"must be two numbers, 0 < low <= high <= {limit}")


def training_batches(
    source: ImageSource,
    settings: InputSettings,
    batch_size: int,
    seed: int,
    skip_log: SkipLog | None = None,
    shard: tuple[int, int] = (0, 1),
    read: Reader | None = None,
    start: int = 0,
) -> Batches:
    """Endless shuffled, augmented batches, the same for the same arguments.

    Batches of all processes together are those that one process alone would get, whatever the
    number of workers. A bad image is replaced by the next good one of the data set, so that every
    other image stays where it is. The number of a batch is all that a run needs to resume, on any
    number of processes and workers.

    Args:
      source: labelled images.
      settings: how images are read.
      batch_size: images in a batch of all processes; a multiple of their number.
      seed: of order and augmentation.
      skip_log: where bad images are listed.
      shard: number of this process and of all processes.
      read: what gives an image by its number and a generator, None if it is bad; None for a
        random crop of `source`.
      start: number of the first batch, from 0.

    Returns:
      Iterator of the rows of this process, `image` uint8 [B, size, size, 3] and `label` int32 [B].
      Its `close` ends the workers.
    """
    replace = _Replacing(read or _decoder(source, settings, skip_log), len(source))
    dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().random_map(replace)
    return _decoded(_rows_of(dataset, batch_size, shard, start), worker_count(settings.workers))


def _rows_of(
    dataset: grain.MapDataset, batch_size: int, shard: tuple[int, int], start: int = 0
) -> grain.MapDataset:
    """Batches of which process `p` of `n` has rows [p B / n, (p + 1) B / n) of every one."""
    number, processes = shard
    if batch_size % processes:
        raise ValueError(f"batch_size (={batch_size}) must be a multiple of {processes} processes")
    rows = dataset.batch(batch_size // processes)
    return rows[slice(start * processes + number, None, processes)]


def _decoded(batches: grain.MapDataset, workers: int) -> Batches:
    """The batches in order, decoded ahead of use by worker processes, or here by threads."""
    dataset = batches.to_iter_dataset(_READING)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_live_as_long_as_parent)
    iterator = iter(dataset)
    return _FromWorkers(iterator) if workers else iterator


class _FromWorkers(Batches):
    """The same batches, fetched by a thread of their own, which blocks the signals to stop.

    The workers that it starts inherit that, so that a signal to all processes does not end them as
    they start; later they ignore it. And what a signal handler raises, it raises in the wait for a
    batch, not in Grain's code: a queue whose `get` is cut short may wait forever when it is closed.

    Args:
      batches: that start workers at the first one.
    """

    def __init__(self, batches: grain.DatasetIterator) -> None:
        self._batches: Any = batches
        self._wanted: queue.SimpleQueue[concurrent.futures.Future[Batch] | None] = (
            queue.SimpleQueue()
        )
        self._next: concurrent.futures.Future[Batch] | None = None
        threading.Thread(target=self._fetch, daemon=True).start()
        self._ask()  # so that workers start before the first batch is needed

    def _ask(self) -> concurrent.futures.Future[Batch]:
        self._next = concurrent.futures.Future()
        self._wanted.put(self._next)
        return self._next

    def _fetch(self) -> None:
        resource_tracker.ensure_running()  # it unblocks the signals where it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        while (wanted := self._wanted.get()) is not None:
            try:
                wanted.set_result(next(self._batches))
            except BaseException as error:  # the last batch is taken, or none can be
                wanted.set_exception(error)
                return

    def __next__(self) -> Batch:
        """Returns the next batch."""
        batch = (self._next or self._ask()).result()
        self._next = None  # not after the end, which stays
        return batch

    def close(self) -> None:
        """Ends the workers, and frees the memory of batches that nobody has taken.

        It is shared with the workers. What is left at the end of the program Python calls a leak.
        """
        # An interrupted run does not wait long for a batch, such as the first, nor closes beside it
        if self._next is None or concurrent.futures.wait([self._next], _LAST_BATCH_SECONDS).done:
            self._wanted.put(None)
            self._next = concurrent.futures.Future()
            self._next.set_exception(StopIteration())
            self._batches.close()
            self._batches = iter(())  # the other must not live until Python itself ends


def _live_as_long_as_parent(worker: int, workers: int) -> None:
    """Lets a worker live exactly as long as its parent, which otherwise it would outlive.

    A scheduler sends SIGTERM to all processes, and a terminal SIGINT, but training still wants
    batches on its way to the checkpoint that follows.
    """
    del worker, workers
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def validation_batches(
    source: ImageSource,
    settings: InputSettings,
    batch_size: int,
    skip_log: SkipLog | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every image once, in order, squashed to the square; the last batch is padded.

    Args:
      source: labelled images; without any there are no batches.
      settings: how images are read.
      batch_size: images in a batch of all processes; a multiple of their number.
      skip_log: where bad images are listed.
      shard: number of this process and of all processes, each of which gets as many batches.

    Returns:
      Iterator of the rows of this process: `image` uint8 [B, size, size, 3], `label` int32 [B],
      and `valid` bool [B], False for padding and bad images.
    """
    if not len(source):
        return iter(())
    count = math.ceil(len(source) / batch_size)
    workers = min(worker_count(settings.workers), count // _BATCHES_OF_WORKER)
    padded = count * batch_size
    read = _Padding(_decoder(source, settings, skip_log), len(source))
    dataset = grain.MapDataset.range(padded).map(read)
    return _decoded(_rows_of(dataset, batch_size, shard), workers)
