"""Input of training and validation: Grain decodes, augments and batches in worker processes."""

import dataclasses
import math
import os
import threading
import time
from collections.abc import Iterator

import grain
import ml_collections
import numpy as np

from delg_jax.data import augmentation, images
from delg_jax.data.skips import SkipLog
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError

Batch = dict[str, np.ndarray]
_WATCH_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class _Decode:
    """Reads one image as `size` x `size` pixels; None and a line in the log if it is bad."""

    source: ImageSource
    crop: augmentation.CropSettings
    limits: tuple[int, int]
    skip_log: SkipLog | None

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> Batch | None:
        try:
            image = images.decode(self.source.read(index), *self.limits)
        except (images.BadImageError, OSError) as error:
            if self.skip_log:
                self.skip_log.add(self.source.names[index], str(error))
            return None
        if rng is None:
            image = augmentation.squash(image, self.crop.size)
        else:
            image = augmentation.random_crop(image, self.crop, rng)
        return {"image": image, "label": np.int32(self.source.labels[index])}


def _decoder(source: ImageSource, data: ml_collections.ConfigDict, skip_log: SkipLog | None):
    if data.image_size < 1:
        raise UserError("config.data.image_size", data.image_size, "must be at least 1")
    _check_range("config.data.crop_area", tuple(data.crop_area), 1.0)
    _check_range("config.data.crop_aspect", tuple(data.crop_aspect), math.inf)
    crop = augmentation.CropSettings(
        data.image_size, tuple(data.crop_area), tuple(data.crop_aspect), data.flip
    )
    return _Decode(source, crop, (data.min_side, data.max_pixels), skip_log)


def _check_range(field: str, values: tuple, limit: float) -> None:
    """Raises a UserError unless `values` are two numbers with 0 < low <= high <= limit."""
    numbers = [isinstance(value, int | float) for value in values]
    if numbers != [True, True] or not 0 < values[0] <= values[1] <= limit:
        raise UserError(field, values, f"must be two numbers, 0 < low <= high <= {limit}")


def training_batches(
    source: ImageSource,
    data: ml_collections.ConfigDict,
    batch_size: int,
    seed: int,
    skip_log: SkipLog | None = None,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless shuffled, augmented batches, the same for the same arguments.

    The iterator's `get_state` and `set_state` stop and resume it at the same batch.

    Args:
      source: labelled images.
      data: the `config.data` tree.
      batch_size: images in a batch of this process.
      seed: of order and augmentation.
      skip_log: where bad images are listed; they are left out of batches.
      shard: number of this process and of all processes.

    Returns:
      Iterator of `image` uint8 [B, size, size, 3] and `label` int32 [B].
    """
    dataset = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    dataset = dataset[slice(shard[0], None, shard[1])].repeat()
    dataset = dataset.random_map(_decoder(source, data, skip_log))
    threads = grain.ReadOptions(num_threads=max(1, data.workers), prefetch_buffer_size=64)
    batches = dataset.to_iter_dataset(threads).batch(batch_size, drop_remainder=True)
    if data.workers:
        options = grain.MultiprocessingOptions(num_workers=data.workers)
        batches = batches.mp_prefetch(options, worker_init_fn=_end_with_parent)
    return iter(batches)


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends a worker whose parent was killed, which otherwise would wait for it for ever."""
    del worker, workers

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def validation_batches(
    source: ImageSource,
    data: ml_collections.ConfigDict,
    batch_size: int,
    skip_log: SkipLog | None = None,
) -> Iterator[Batch]:
    """Every image once, in order, squashed to the square; the last batch is padded.

    Args:
      source: labelled images.
      data: the `config.data` tree.
      batch_size: images in a batch.
      skip_log: where bad images are listed; they are left out.

    Yields:
      `image` uint8 [B, size, size, 3], `label` int32 [B], `valid` bool [B].
    """
    dataset = grain.MapDataset.range(len(source)).map(_decoder(source, data, skip_log))
    threads = grain.ReadOptions(num_threads=max(1, data.workers), prefetch_buffer_size=64)
    for batch in dataset.to_iter_dataset(threads).batch(batch_size, drop_remainder=False):
        count = len(batch["label"])
        missing = batch_size - count
        yield {
            "image": np.pad(batch["image"], [(0, missing), (0, 0), (0, 0), (0, 0)]),
            "label": np.pad(batch["label"], (0, missing)),
            "valid": np.arange(batch_size) < count,
        }
