import json
import os
import pathlib

import numpy as np
import pytest

from delg_jax import array_files, workdir
from delg_jax.errors import UserError
from delg_jax.features import FeatureStore
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.locks import exclusive
from delg_jax.search import asmk, asmk_store
from delg_jax.search.asmk import AsmkScoring, AsmkSettings
from delg_jax.search.asmk_store import Source
from tests.flips import flips
from tests.search.test_asmk import database, equal

SETTINGS = AsmkSettings(6)
SCORING = AsmkScoring(3, 0.2)


@pytest.fixture
def data(rng):
    return database(rng)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }


def opened(folder, data, source="one", settings=SETTINGS, features=None):
    return asmk_store.load_or_build(folder, settings, Source(*data, source, features))


def merged(index):
    return asmk.merge(index.parts)


def similarity(index, data):
    return asmk.similarity(index, data[0][:3], data[1][:3], SCORING)


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("entries", [1, 50, 10**6])
def test_an_index_on_disk_is_that_in_memory(data, tmp_path, monkeypatch, entries, aggregate):
    monkeypatch.setattr(asmk_store, "_ENTRIES", entries)
    settings = AsmkSettings(6, aggregate)
    index = opened(tmp_path / "index", data, settings=settings)
    expected = asmk.build(*data, settings)
    (part,) = index.parts
    assert isinstance(part.codes, np.memmap)
    equal(part, expected.parts[0])
    np.testing.assert_array_equal(index.codebook.centres, expected.codebook.centres)
    np.testing.assert_array_equal(similarity(index, data), similarity(expected, data))
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert len(names) == 2


def test_an_index_is_built_once_for_its_settings_and_features(data, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    opened(folder, data)
    before = files(folder)
    with monkeypatch.context() as patch:
        patch.setattr(asmk, "build_part", None)
        opened(folder, data)
    assert files(folder) == before
    other = AsmkSettings(6, seed=4)
    assert opened(folder, data, settings=other).settings == other
    opened(folder, data, "two", other)
    assert json.loads((folder / "index.json").read_text())["source"] == "two"
    assert len(list(folder.iterdir())) == 2
    opened(folder, data)
    assert files(folder) == before


def test_a_killed_build_resumes_to_the_same_bytes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(asmk_store, "_ENTRIES", 30)
    opened(tmp_path / "whole", data)
    expected = files(tmp_path / "whole")
    writes = (array_files.save_array, workdir.write_json, os.replace)
    places = ((asmk_store, "save_array"), (workdir, "write_json"), (os, "replace"))
    kills = 0
    for write, (module, name) in zip(writes, places, strict=True):
        for turn in range(0, 200, 3):
            left = [turn]

            def killing(*args, write=write, left=left):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return write(*args)

            folder = tmp_path / f"{name}{turn}"
            with monkeypatch.context() as patch:
                patch.setattr(module, name, killing)
                try:
                    opened(folder, data)
                    break
                except KeyboardInterrupt:
                    kills += 1
            opened(folder, data)
            assert files(folder) == expected
    assert kills > 10


def test_what_was_finished_is_not_built_again(data, tmp_path, monkeypatch):
    monkeypatch.setattr(asmk_store, "_ENTRIES", 30)
    built = []
    build_part = asmk.build_part

    def counting(*args):
        if len(built) == 3:
            raise KeyboardInterrupt
        built.append(args[-2])
        return build_part(*args)

    with monkeypatch.context() as patch:
        patch.setattr(asmk, "build_part", counting)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "index", data)
    more = []

    def noting(*args):
        more.append(args[-2])
        return build_part(*args)

    monkeypatch.setattr(asmk, "build_part", noting)
    opened(tmp_path / "index", data)
    assert sorted(built + more) == list(range(0, 12, 2))


def test_a_folder_that_another_job_writes_is_refused(data, tmp_path):
    with (
        exclusive(tmp_path / "index", "search index"),
        pytest.raises(UserError, match="another job"),
    ):
        opened(tmp_path / "index", data)


def test_flipped_bits_are_noticed_or_change_nothing(data, tmp_path):
    folder = tmp_path / "index"
    expected = similarity(opened(folder, data), data)
    refused, tried = 0, 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for _ in flips(path, 15):
            tried += 1
            try:
                same = np.array_equal(similarity(asmk_store.load(folder), data), expected)
            except UserError as error:
                refused += 1
                same = error.subject == "search index"
            assert same, path
    assert refused > 0.8 * tried


def test_lists_are_verified_when_they_are_read(data, tmp_path, monkeypatch):
    monkeypatch.setattr(asmk_store, "_BLOCK", 128)
    folder = tmp_path / "index"
    opened(folder, data)
    (path,) = folder.glob("*/*_*/codes.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for read in (lambda index: similarity(index, data), merged):
        index = asmk_store.load(folder)
        with pytest.raises(UserError, match=r"search index = .*codes\.npy"):
            read(index)


@pytest.mark.parametrize("name", ["codes.npy", "offsets.npy", "offsets.npy.crc32", "centres.npy"])
def test_a_missing_file_is_named(data, tmp_path, name):
    opened(tmp_path / "index", data)
    for path in (tmp_path / "index").rglob(name):
        path.unlink()
    with pytest.raises(UserError, match=f"search index.*{name}"):
        asmk_store.load(tmp_path / "index")
    with pytest.raises(UserError, match=r"search index.*index\.json"):
        asmk_store.load(tmp_path / "absent")


def store_of(folder, vectors, mask, start=0):
    """A feature store with some images, appended if there is one."""
    layout = Layout(4, "float32", "float32", vectors.shape[1], 1)
    store = FeatureStore.open_or_make(folder, layout)
    store.append([f"image{start + number}" for number in range(len(vectors))])
    for run in store.missing():
        rows = []
        for row in run:
            present = mask[row - start]
            count = int(present.sum())
            plain = np.zeros(count, np.float32)
            local = LocalFeatures(
                np.zeros((count, 2), np.float32),
                plain + 1,
                plain,
                vectors[row - start][present],
                np.ones(count, bool),
            )
            rows.append(Features(np.ones(3, np.float32), local))
        store.write(run, rows)
    store.finish()
    return FeatureStore(folder)


def open_store(folder, store):
    local = store.local_features(0)
    data = np.asarray(local.descriptors), np.asarray(local.mask)
    return opened(folder, data, store.digest(), features=store), data


@pytest.mark.parametrize("aggregate", [False, True])
def test_appended_and_deleted_images_give_the_lists_of_a_new_index(tmp_path, data, aggregate):
    settings = AsmkSettings(6, aggregate)
    vectors, mask = data
    mask[:, 0] = True
    folder = tmp_path / "index"
    store = store_of(tmp_path / "store", vectors[:7], mask[:7])
    words = None

    def check(store, parts):
        nonlocal words
        local = store.local_features(0)
        now = np.asarray(local.descriptors), np.asarray(local.mask)
        source = Source(*now, store.digest(), store)
        index = asmk_store.load_or_build(folder, settings, source)
        words = index.codebook if words is None else words
        np.testing.assert_array_equal(index.codebook.centres, words.centres)
        equal(merged(index), asmk.build_part(words, aggregate, *now))
        assert len(index.parts) == parts
        # Nothing is left of what the index was
        (generation,) = (path for path in folder.iterdir() if path.is_dir())
        assert len(list(generation.iterdir())) == 1 + parts
        np.testing.assert_array_equal(
            similarity(asmk_store.load(folder), now), similarity(index, now)
        )

    check(store, 1)
    store = store_of(tmp_path / "store", vectors[7:9], mask[7:9], 7)
    check(store, 2)
    store.delete(["image2", "image8"])
    check(store, 2)
    store.delete(["image7"])  # all of the second part
    check(store, 1)
    for stop in (10, 11):
        first = stop - 1
        store = store_of(tmp_path / "store", vectors[first:stop], mask[first:stop], first)
        check(store, stop - 8)
    store.delete(["image0", "image9"])
    store = store_of(tmp_path / "store", vectors[11:12], mask[11:12], 11)
    check(store, 3)


def test_many_small_parts_are_merged(tmp_path, data, monkeypatch):
    monkeypatch.setattr(asmk_store, "_PARTS", 2)
    vectors, mask = data
    mask[:, 0] = True
    for stop in (5, 6, 7, 8):
        first = 0 if stop == 5 else stop - 1
        store = store_of(tmp_path / "store", vectors[first:stop], mask[first:stop], first)
        index, now = open_store(tmp_path / "index", store)
        assert len(index.parts) == {5: 1, 6: 2, 7: 1, 8: 2}[stop]
        equal(merged(index), asmk.build_part(index.codebook, False, *now))


def test_other_features_of_the_same_images_are_built_anew(tmp_path, data):
    vectors, mask = data
    mask[:, 0] = True
    first, _ = open_store(tmp_path / "index", store_of(tmp_path / "a", vectors, mask))
    other, now = open_store(tmp_path / "index", store_of(tmp_path / "b", vectors[::-1], mask[::-1]))
    assert not np.array_equal(first.codebook.centres, other.codebook.centres)
    equal(merged(other), asmk.build_part(other.codebook, False, *now))


def test_an_empty_database(tmp_path, data):
    vectors, mask = data
    index = opened(tmp_path / "index", (vectors[:0], mask[:0]))
    assert similarity(index, data).shape == (3, 0)
    bare = opened(tmp_path / "bare", (vectors, np.zeros_like(mask)))
    assert (similarity(bare, data) == 0).all()
