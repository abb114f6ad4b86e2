"""Cached feature maps of a frozen backbone: computed once, then read instead of the images."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax import system_errors
from delg_jax.array_files import CheckedArray, read_arrays, write_checksums
from delg_jax.data import pipeline, skips
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError
from delg_jax.models.delg import BACKBONES, Delg
from delg_jax.models.variables import digest
from delg_jax.progress import Progress
from delg_jax.workdir import replacing, write_arrays

FOLDER = "cache"
MAPS = ("conv4", "conv5")
_GOOD = "good"  # which images are readable
_REMEDY = "delete the folder to compute it again"
_PIXELS = ("image_size", "reduced_decode", "min_side", "max_pixels")
DECIDING_FIELDS = (
    *("model.backbone", "model.convention", "model.conv4_stride", "model.conv4_block"),
    "train.dtype",
    *(f"data.{name}" for name in _PIXELS),
)


@dataclasses.dataclass(frozen=True)
class CachedMaps:
    """Reads the maps of one image; a reader for `pipeline.training_batches`.

    Attributes:
      folder: of the files.
      labels: int [N], the class of each image.
    """

    folder: pathlib.Path
    labels: np.ndarray

    def __call__(self, index: int, rng: np.random.Generator) -> pipeline.Batch | None:
        """`conv4`, `conv5` and `label` of an image; None if the image is bad."""
        del rng  # the maps are of whole images, so nothing is random
        files = _open(self.folder)
        if not files.good[index]:
            return None
        one = slice(index, index + 1)
        maps = {name: np.array(rows[one][0]) for name, rows in files.maps.items()}
        return {**maps, "label": np.asarray(self.labels[index], np.int32)}


class _Files(NamedTuple):
    """An open cache: maps [N, H, W, C] by name, and which images are good, bool [N]."""

    maps: dict[str, CheckedArray]
    good: np.ndarray


@functools.lru_cache(maxsize=1)
def _open(folder: pathlib.Path) -> _Files:
    try:
        good = read_arrays(folder / f"{_GOOD}.npz")[_GOOD]
        paths = {name: folder / f"{name}.npy" for name in MAPS}
        maps = {n: CheckedArray(path, "training cache", _REMEDY) for n, path in paths.items()}
        lengths = {len(good), *map(len, maps.values())}
        if len(lengths) > 1:
            raise ValueError(f"files of {sorted(lengths)} images")
    except (OSError, ValueError, TypeError, KeyError) as error:
        system_errors.reraise(error)
        rule = f"is damaged ({error}); {_REMEDY}"
        raise UserError("training cache", str(folder), rule) from error
    return _Files(maps, good)


def made_of(variables: Any, source: ImageSource) -> dict[str, str]:
    """Digests of what maps are made from: the backbone, and the images, which may have moved."""
    (name,) = [part for part in BACKBONES if part in variables["params"]]
    backbone = {kind: tree.get(name, {}) for kind, tree in variables.items()}
    return {"backbone": digest(backbone), "images": _digest_of_images(source)}


def build(
    module: Delg,
    variables: Any,
    source: ImageSource,
    images: pipeline.InputSettings,
    batch_size: int,
    most_gigabytes: float,
    folder: pathlib.Path,
    skip_log: skips.SkipLog,
) -> CachedMaps:
    """Computes the maps of all images, resized to the square, unless the folder holds them.

    Args:
      module: the network.
      variables: of the network.
      source: labelled images.
      images: how they are read.
      batch_size: images that are computed at a time.
      most_gigabytes: largest size of all maps.
      folder: claimed for maps that are `made_of` these images and variables; gets float32 arrays,
        whatever the dtype of the computation.
      skip_log: where bad images are listed.

    Returns:
      Their reader.

    Raises:
      UserError: if they would be larger than `config.train.cache_gigabytes`.
    """
    maps = CachedMaps(folder, source.labels)
    if not (folder / f"{_GOOD}.npz").is_file():
        _write(module, variables, source, images, batch_size, most_gigabytes, folder, skip_log)
        _open.cache_clear()  # it may hold earlier files of the same names
    return maps


def _digest_of_images(source: ImageSource) -> str:
    """Digest of names and contents; reads the images unless the data set stores their digests."""
    stored = getattr(source, "digests", [])
    found = hashlib.sha256()
    for index, name in enumerate(source.names):
        content = stored[index] if stored else ""
        if not content:
            try:
                content = hashlib.sha256(source.read(index)).hexdigest()
            except OSError:
                content = "absent"
        found.update(f"{name!r}:{content}\n".encode())
    return found.hexdigest()


def _write(
    module, variables, source, settings, batch_size, most_gigabytes, folder, skip_log
) -> None:
    """Writes all files, last the one that marks readable images, as it completes the cache."""
    size = settings.crop.size
    compute = jax.pmap(functools.partial(_backbone, module), in_axes=(None, 0))
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    shapes = jax.eval_shape(functools.partial(_backbone, module), variables, image)
    shapes = {name: (len(source), *shape.shape[1:]) for name, shape in shapes.items()}
    _check_size(sum(4 * math.prod(shape) for shape in shapes.values()), most_gigabytes)
    good = np.zeros(len(source), bool)
    with contextlib.ExitStack() as stack:
        paths = {n: stack.enter_context(replacing(folder / f"{n}.npy")) for n in MAPS}
        files = {
            name: np.lib.format.open_memmap(path, "w+", np.float32, shapes[name])
            for name, path in paths.items()
        }
        batches = pipeline.validation_batches(source, settings, batch_size, skip_log)
        progress = stack.enter_context(Progress("cache", len(source)))
        for start, batch in zip(range(0, len(source), batch_size), batches, strict=True):
            rows = slice(start, min(start + batch_size, len(source)))
            count = rows.stop - start
            images = batch["image"].reshape(jax.device_count(), -1, *batch["image"].shape[1:])
            for name, values in jax.device_get(compute(variables, images)).items():
                files[name][rows] = values.reshape(-1, *values.shape[2:])[:count]
            good[rows] = batch["valid"][:count]
            progress.advance(count)
        for file in files.values():
            file.flush()
    for name in MAPS:
        write_checksums(folder / f"{name}.npy")
    write_arrays(folder / f"{_GOOD}.npz", {_GOOD: good})


def _backbone(module: Delg, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    outputs = module.apply(variables, images)
    return {name: getattr(outputs, name).astype(jnp.float32) for name in MAPS}


def _check_size(needed: int, most_gigabytes: float) -> None:
    if needed > most_gigabytes * 1e9:
        rule = f"must be at least the {needed / 1e9:.2f} GB of all feature maps"
        raise UserError("config.train.cache_gigabytes", most_gigabytes, rule)
