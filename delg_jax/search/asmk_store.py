"""The inverted file of `asmk` on disk: built block by block, appended, and cut down.

`index.json` names the parts that make the index, and is replaced when others do; they lie in the
folder of a generation, which has one set of words. What an interrupted job has finished is used by
the next; what no index names is deleted when one is finished.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from delg_jax import distributed, json_files, workdir
from delg_jax.array_files import CheckedArray, save_array, write_checksums
from delg_jax.errors import UserError
from delg_jax.features.storage.rows import DELETED
from delg_jax.features.store import FeatureStore
from delg_jax.locks import exclusive, held_by_first
from delg_jax.progress import Progress
from delg_jax.search import asmk, kmeans
from delg_jax.search.asmk import AsmkIndex, AsmkSettings, Part
from delg_jax.search.batching import Rows
from delg_jax.search.kmeans import Codebook

_HEADER = "index.json"
_WORDS = "words"
_FORMAT = 1
_SUBJECT, _REMEDY = "search index", "delete the folder to rebuild it"
_BLOCK = 2**16  # bytes with a checksum of their own: about a list of a million images
_ENTRIES = 2**24  # features of a block of images that is built in memory, about
_PARTS = 4  # more are merged
_MAPPED = ("codes", "images")  # arrays that stay on disk
_PART = ("codes", "images", "offsets", "frequency")
_FIELDS = json_files.fields(
    {
        "format": json_files.count,
        "settings": json_files.each(json_files.anything),
        "dimension": json_files.count,
        "source": json_files.text,
        "generation": json_files.text,
        "parts": json_files.every(
            json_files.fields({"name": json_files.text, "count": json_files.count})
        ),
        "rows": json_files.count,  # of the feature store, deleted ones included
        "first": json_files.text,  # digest of the features in these rows; "" if unknown
        "deleted": json_files.every(json_files.count),
    }
)


class Source(NamedTuple):
    """What an index is made from.

    Attributes:
      descriptors: float [N, K, D]; array, memory map or rows on disk.
      mask: bool [N, K].
      digest: of both.
      features: the store that they come from; None if there is none, and then an index of fewer
        images is not extended.
    """

    descriptors: Rows
    mask: Rows
    digest: str
    features: FeatureStore | None = None


def load(folder: str | pathlib.Path) -> AsmkIndex:
    """Opens an index; lists stay on disk and are verified when they are first read.

    Raises:
      UserError: if the folder is missing, damaged or not such an index.
    """
    folder = pathlib.Path(folder)
    header = _header(folder)
    if header is None:
        raise UserError(_SUBJECT, str(folder), f"must be a folder with {_HEADER}")
    generation = folder / header["generation"]
    try:
        settings = AsmkSettings(**header["settings"])
        words = _read_words(generation / _WORDS)
        parts = [_read_part(generation / part["name"], part["count"]) for part in header["parts"]]
        for part in parts:
            part.check(len(words), -(-header["dimension"] // 64))
        if words.centres.shape[1:] != (header["dimension"],):
            raise ValueError(f"centres have shape {words.centres.shape}")
    except FileNotFoundError as error:
        rule = f"must be a folder with {pathlib.Path(error.filename).name}; {_REMEDY}"
        raise UserError(_SUBJECT, str(folder), rule) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise UserError(_SUBJECT, str(folder), f"is damaged ({error}); {_REMEDY}") from error
    return AsmkIndex(settings, words, parts)


def load_or_build(
    folder: pathlib.Path, settings: AsmkSettings, source: Source, shared: bool = False
) -> AsmkIndex:
    """Opens the index of these features; builds, extends or cuts down what is there if it differs.

    An index whose images are the first of these, less deleted ones, keeps its words; any other is
    built again.

    Args:
      folder: of the index.
      settings: of the index.
      source: what it is made from.
      shared: whether all processes of `jax.distributed` call this and share the work; then the
        lists are equal for any number of them.

    Returns:
      The index, memory-mapped.

    Raises:
      UserError: if the stored index is damaged, or another job is writing it.
    """
    current = _is_current(_header(folder), settings, source)
    if not (distributed.agree(current, f"{folder}: read") if shared else current):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, shared):
            _Update(folder, settings, source, shared).run()
    return load(folder)


def _is_current(header: dict[str, Any] | None, settings: AsmkSettings, source: Source) -> bool:
    return (
        header is not None
        and header["settings"] == dataclasses.asdict(settings)
        and header["source"] == source.digest
        and header["dimension"] == source.descriptors.shape[-1]
        and sum(part["count"] for part in header["parts"]) == len(source.mask)
    )


@contextlib.contextmanager
def _locked(folder: pathlib.Path, shared: bool) -> Iterator[None]:
    if shared:
        with held_by_first(folder, lambda: None, _SUBJECT):
            yield
    else:
        with exclusive(folder, _SUBJECT):
            yield


class _Update:
    """Makes the index of a folder that of `source`; the arguments are those of `load_or_build`."""

    def __init__(
        self, folder: pathlib.Path, settings: AsmkSettings, source: Source, shared: bool
    ) -> None:
        self._folder, self._settings, self._source, self._shared = folder, settings, source, shared
        header = _header(folder)
        text = repr((source.digest, source.descriptors.shape, dataclasses.astuple(settings)))
        self._tag = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._old: dict[str, Any] | None = None
        if header is not None and self._extends(header):
            self._old = header
        self._generation = folder / (self._old["generation"] if self._old else self._tag)
        self._kept = [np.zeros(0, bool)] if self._old is None else self._still_there(self._old)

    def run(self) -> None:
        """Learns words if there are none, builds blocks of images, and puts them together."""
        words = self._words()
        first, count = sum(int(keep.sum()) for keep in self._kept), len(self._source.mask)
        share = jax.process_count() if self._shared else 1
        step = max(1, _ENTRIES // max(self._source.mask.shape[1], 1))
        step = max(1, min(step, -(-(count - first) // share)))
        blocks = [range(start, min(start + step, count)) for start in range(first, count, step)]
        title = f"{self._folder}: lists"
        missing = [block for block in blocks if not self._block(block).is_dir()]
        if self._shared:
            with distributed.shared_out(title, missing, lambda: self._finish(blocks)) as mine:
                self._build(words, mine)
        else:
            self._build(words, missing)
            self._finish(blocks)

    def _extends(self, header: dict[str, Any]) -> bool:
        """Whether the images of the stored index are the first of these, less deleted ones."""
        features, rows = self._source.features, header["rows"]
        if (
            header["settings"] != dataclasses.asdict(self._settings)
            or header["dimension"] != self._source.descriptors.shape[-1]
            or features is None
            or not header["first"]
            or rows > len(features.states())
        ):
            return False
        restored = (features.states()[header["deleted"]] & DELETED) == 0
        return not restored.any() and features.digest_of_rows(rows) == header["first"]

    def _still_there(self, header: dict[str, Any]) -> list[np.ndarray]:
        """For each part, which of its images are not deleted."""
        assert self._source.features is not None  # `_extends`
        held = np.ones(header["rows"], bool)
        held[header["deleted"]] = False
        kept = (self._source.features.states()[: header["rows"]] & DELETED) == 0
        ends = np.cumsum([part["count"] for part in header["parts"]])
        return np.split(kept[held], ends[:-1])

    def _words(self) -> Codebook:
        """The words of this generation; the first process learns them."""
        folder = self._generation / _WORDS
        name = f"{folder}: learned"
        turn = distributed.first_before_others(name) if self._shared else contextlib.nullcontext()
        with turn:
            if not folder.is_dir():
                settings = self._settings
                words = kmeans.learn_words(
                    self._source.descriptors,
                    self._source.mask,
                    settings.words,
                    settings.rounds,
                    settings.seed,
                )
                with _new_folder(folder) as temporary:
                    for field in dataclasses.fields(words):
                        save_array(temporary / f"{field.name}.npy", getattr(words, field.name))
            return _read_words(folder)

    def _block(self, images: range) -> pathlib.Path:
        """The folder of the lists of a block of images."""
        return self._generation / f"{self._tag}_{images.start}_{images.stop}"

    def _build(self, words: Codebook, blocks: Sequence[range]) -> None:
        with Progress("inverted file", sum(map(len, blocks))) as progress:
            for block in blocks:
                part = asmk.build_part(
                    words,
                    self._settings.aggregate,
                    self._source.descriptors,
                    self._source.mask,
                    block.start,
                    block.stop,
                )
                with _new_folder(self._block(block)) as folder:
                    for name in _PART:
                        save_array(folder / f"{name}.npy", getattr(part, name), _BLOCK)
                progress.advance(len(block))

    def _finish(self, blocks: list[range]) -> None:
        """Makes the blocks parts of the index, and deletes what it does not name."""
        parts = []
        stored = [part["name"] for part in self._old["parts"]] if self._old else []
        for number, name in enumerate(stored):
            keep = self._kept[number]
            if not keep.all():
                name = self._merged([(name, len(keep))], f"{self._tag}_kept_{number}", [keep])
            if keep.any():
                parts.append((name, int(keep.sum())))
        added = [(self._block(block).name, len(block)) for block in blocks]
        if len(added) > 1:
            added = [(self._merged(added, f"{self._tag}_added"), sum(map(len, blocks)))]
        parts += added
        if len(parts) > _PARTS:
            parts = [(self._merged(parts, f"{self._tag}_all"), sum(count for _, count in parts))]
        features = self._source.features
        rows = 0 if features is None else len(features.states())
        deleted = [] if features is None else np.flatnonzero(features.states() & DELETED).tolist()
        content = {
            "format": _FORMAT,
            "settings": dataclasses.asdict(self._settings),
            "dimension": self._source.descriptors.shape[-1],
            "source": self._source.digest,
            "generation": self._generation.name,
            "parts": [{"name": name, "count": count} for name, count in parts],
            "rows": rows,
            "first": "" if features is None else features.digest_of_rows(rows),
            "deleted": deleted,
        }
        workdir.write_json(self._folder / _HEADER, content)
        named = {_WORDS, *(name for name, _ in parts)}
        _remove(self._folder, {_HEADER, self._generation.name})
        _remove(self._generation, named)

    def _merged(
        self, parts: list[tuple[str, int]], name: str, kept: list[np.ndarray] | None = None
    ) -> str:
        """Writes the merge of parts as a part with a name, which is returned."""
        opened = [_read_part(self._generation / part, count) for part, count in parts]
        target = self._generation / name
        if target.is_dir():
            return name
        with _new_folder(target) as folder:

            def allocate(array: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
                path = folder / f"{array}.npy"
                if 0 in shape:  # cannot be mapped
                    np.save(path, np.zeros(shape, dtype))
                    return np.zeros(shape, dtype)
                return np.lib.format.open_memmap(path, "w+", dtype, shape)

            part = asmk.merge(opened, kept, allocate)
            for array in _MAPPED:
                values = getattr(part, array)
                if isinstance(values, np.memmap):
                    values.flush()
                write_checksums(folder / f"{array}.npy", _BLOCK)
            for array in set(_PART) - set(_MAPPED):
                save_array(folder / f"{array}.npy", getattr(part, array), _BLOCK)
        return name


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder beside `folder`, which gets that name if the block succeeds."""
    temporary = folder.parent / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        workdir.move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(folder: pathlib.Path, kept: set[str]) -> None:
    """Deletes what is in a folder, except some names."""
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _header(folder: pathlib.Path) -> dict[str, Any] | None:
    """The description of an index; None if there is none; a UserError if it is damaged."""
    header = json_files.read(folder / _HEADER, _SUBJECT, _FIELDS, _REMEDY)
    if header is not None and header["format"] != _FORMAT:
        rule = f"has the unknown format {header['format']}; {_REMEDY}"
        raise UserError(_SUBJECT, str(folder), rule)
    return header


def _read_words(folder: pathlib.Path) -> Codebook:
    names = [field.name for field in dataclasses.fields(Codebook) if field.init]
    return Codebook(*(CheckedArray(folder / f"{n}.npy", _SUBJECT, _REMEDY)[:] for n in names))


def _read_part(folder: pathlib.Path, count: int) -> Part:
    arrays = {
        name: CheckedArray(folder / f"{name}.npy", _SUBJECT, _REMEDY, _BLOCK) for name in _PART
    }
    offsets, frequency = arrays["offsets"][:], arrays["frequency"][:]
    codes, images = arrays["codes"], arrays["images"]
    good = np.zeros(len(offsets), bool)

    def verify(words: np.ndarray) -> None:
        new = np.unique(words[~good[words]])
        for start, stop in zip(offsets[new].tolist(), offsets[new + 1].tolist(), strict=True):
            images.verify(start, stop)
            for plane in range(codes.shape[0]):
                codes.verify(plane * codes.shape[1] + start, plane * codes.shape[1] + stop)
        good[new] = True

    return Part(count, codes.unverified, images.unverified, offsets, frequency, verify)
