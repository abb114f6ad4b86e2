"""Whether the published files are still those that a data set was prepared of.

Sizes and times decide. Where only times differ, as after a copy, contents do: of lists and archives
always, of images up to `CONTENTS` of them, so that it takes seconds for millions of images.
"""

import concurrent.futures
import csv
import itertools
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from delg_jax.data.prepared import manifest, stamps
from delg_jax.data.prepared.manifest import Manifest, Source
from delg_jax.data.prepared.stamps import Stamp

CONTENTS = 2000  # images read at most; more are drawn evenly from all whose times differ
_READERS = 8  # stat and hashing leave the interpreter lock
_ROWS = 4096  # images looked up at a time
_SHOWN = 3  # files that are named

_LOG = logging.getLogger(__name__)


class _Image(NamedTuple):
    """A line of `source.csv`."""

    path: str
    stamp: Stamp


def differences(folder: pathlib.Path, found: Manifest, source: Source) -> list[str]:
    """How published files differ from those that were read.

    Args:
      folder: of the records.
      found: the manifest in it.
      source: the files now; where they lie does not matter.

    Returns:
      A text for each kind of difference, with the first files; none if there is none.
    """
    tars = {name: tar for name, (tar, _) in source.archives.items()}
    changed = [
        *_changed(found.lists, source.lists, whole=True),
        *_changed(found.archives, tars, whole=False),
    ]
    texts = changed[:_SHOWN]
    if len(changed) > _SHOWN:
        texts.append(f"{len(changed) - _SHOWN} more files differ")
    # Lists that changed name other images: those of before would only add to the confusion
    return texts or _changed_images(folder, source)


def _changed(
    before: Mapping[str, Stamp], now: Mapping[str, pathlib.Path], whole: bool
) -> Iterator[str]:
    for name in sorted({*before, *now}):
        old = before.get(name)
        new = stamps.stamp(now[name]) if name in now else Stamp(-1, 0)
        if old is None:
            yield f"{name} is new"
        elif new.size < 0:
            yield f"{name} is absent"
        elif new.size != old.size:
            yield f"{name} has {new.size} bytes, not {old.size}"
        elif new.time != old.time and stamps.digest_of_path(now[name], whole) != old.digest:
            yield f"{name} has other content"


def _changed_images(folder: pathlib.Path, source: Source) -> list[str]:
    if source.root is None:
        return []
    new, absent, other, retimed = set(source.images or ()), [], [], []
    count = 0
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        rows = _images(folder)
        while images := list(itertools.islice(rows, _ROWS * _READERS)):
            parts = [images[i : i + _ROWS] for i in range(0, len(images), _ROWS)]
            looked_up = pool.map(lambda part: _stamps(source.root, part), parts)
            for image, now in zip(images, itertools.chain.from_iterable(looked_up), strict=True):
                count += 1
                new.discard(image.path)
                if now == image.stamp[:2]:
                    continue
                if now[0] < 0:
                    absent.append(image.path)
                elif now[0] != image.stamp.size:
                    other.append(image.path)
                else:
                    retimed.append(image)
        other += _with_other_content(source.root, retimed, pool)
    return [
        f"{len(paths)} of {count} images {verb} (first {min(paths)})"
        for verb, paths in (("are new", new), ("are absent", absent), ("have changed", other))
        if paths
    ]


def _images(folder: pathlib.Path) -> Iterator[_Image]:
    with (folder / manifest.IMAGES).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for path, size, time, digest in rows:
            yield _Image(path, Stamp(int(size), int(time), digest))


def _stamps(root: pathlib.Path, images: Iterable[_Image]) -> list[tuple[int, int]]:
    """Size and time now of each image."""
    return [stamps.stamp(os.path.join(root, image.path))[:2] for image in images]


def _with_other_content(
    root: pathlib.Path, images: list[_Image], pool: concurrent.futures.Executor
) -> list[str]:
    """Paths of images of the same size whose content is another."""
    step = max(len(images) / CONTENTS, 1)
    drawn = [images[int(n * step)] for n in range(min(len(images), CONTENTS))]
    digests = pool.map(lambda image: stamps.digest_of_path(root / image.path), drawn)
    pairs = zip(drawn, digests, strict=True)
    other = [image.path for image, digest in pairs if digest != image.stamp.digest]
    if len(images) > len(drawn) and not other:
        text = "%s: %d images have another time than when they were prepared; %d of them were read"
        _LOG.info(text + ", and are the same", root, len(images), len(drawn))
    return other
