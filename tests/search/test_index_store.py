import concurrent.futures
import dataclasses
import json
import re
import time

import numpy as np
import pytest

from delg_jax.array_files import CheckedArray, save_array
from delg_jax.errors import UserError
from delg_jax.search import cann, index_store, ivf
from delg_jax.search.cann import GridSettings
from delg_jax.search.kernels import SimilarityKernel
from tests.flips import flips

SETTINGS = GridSettings(grids=2, axes=3, approximation=2.0, seed=3)


@pytest.fixture
def images(rng):
    vectors = rng.normal(size=(6, 4, 5)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.ones((6, 4), bool)


@pytest.fixture
def index(images):
    return cann.build(*images, SETTINGS)


def test_a_saved_index_is_mapped_and_finds_the_same(index, images, tmp_path):
    index_store.save(index, tmp_path / "deep" / "cann")
    loaded = index_store.load(tmp_path / "deep" / "cann")
    assert isinstance(loaded.keys, CheckedArray)
    assert isinstance(loaded.keys[:3], np.memmap)
    assert (loaded.settings, loaded.dimension, loaded.count) == (SETTINGS, 5, 6)
    np.testing.assert_array_equal(cann.similarity(loaded, *images), cann.similarity(index, *images))
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"cann", ".cann.lock"}


def test_a_loaded_index_can_be_saved_in_its_place(index, images, tmp_path):
    index_store.save(index, tmp_path / "cann")
    index_store.save(index_store.load(tmp_path / "cann"), tmp_path / "cann")
    loaded = index_store.load(tmp_path / "cann")
    np.testing.assert_array_equal(cann.similarity(loaded, *images), cann.similarity(index, *images))
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {"cann"}


def test_an_empty_index_can_be_saved(images, tmp_path):
    index_store.save(cann.build(images[0], np.zeros((6, 4), bool), SETTINGS), tmp_path / "cann")
    assert (cann.similarity(index_store.load(tmp_path / "cann"), *images) == 0).all()


def test_a_failed_save_leaves_what_was_there(index, tmp_path, monkeypatch):
    index_store.save(index, tmp_path / "cann")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    for name in ("cann", "other"):
        with pytest.raises(OSError, match="disk full"):
            index_store.save(index, tmp_path / name)
    assert index_store.load(tmp_path / "cann").count == 6
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {"cann"}


def test_a_file_that_is_no_index_is_refused(index, tmp_path):
    with pytest.raises(UserError, match=r"search index.*index\.json"):
        index_store.load(tmp_path / "absent")
    folder = tmp_path / "cann"

    def damaged(change):
        index_store.save(index, folder)
        change()
        with pytest.raises(UserError, match="search index"):
            index_store.load(folder)

    header = folder / "index.json"
    damaged((folder / "keys.npy").unlink)
    damaged(lambda: (folder / "keys.npy").write_bytes(b"no array"))
    damaged(lambda: save_array(folder / "images.npy", index.images[:-1]))
    damaged(lambda: save_array(folder / "images.npy", index.images + 1))
    damaged(lambda: save_array(folder / "offsets.npy", index.offsets[:-1]))
    damaged(lambda: save_array(folder / "offsets.npy", index.offsets[:0]))
    damaged((folder / "offsets.npy.crc32").unlink)
    damaged(lambda: header.write_text("{}"))
    damaged(lambda: header.write_text(json.dumps({"format": 99})))
    damaged(lambda: header.write_text("[1]"))


def test_cells_are_saved_and_mapped(images, tmp_path):
    index = ivf.build(*images, ivf.IvfSettings(4))
    index_store.save(index, tmp_path / "ivf")
    loaded = index_store.load(tmp_path / "ivf")
    assert isinstance(loaded.descriptors[:3], np.memmap)
    assert (loaded.settings, loaded.dimension, loaded.count) == (ivf.IvfSettings(4), 5, 6)
    for name in ("centres", "descriptors", "images", "offsets"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(index, name))
    save_array(tmp_path / "ivf" / "images.npy", index.images[:-1])
    with pytest.raises(UserError, match="search index.*offsets"):
        index_store.load(tmp_path / "ivf")


def test_of_jobs_that_need_one_index_one_builds_it(images, tmp_path):
    built, place = [], index_store.Place(tmp_path / "cann", "one")

    def build():
        built.append(1)
        time.sleep(0.2)
        return cann.build(*images, SETTINGS)

    def job(_):
        return index_store.load_or_build(place, SETTINGS, images[0].shape, build)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(job, range(4)))
        list(pool.map(lambda one: index_store.save(one, tmp_path / "again"), found))
    assert built == [1]
    loaded = index_store.load(tmp_path / "again")
    np.testing.assert_array_equal(loaded.keys, found[0].keys)


def test_an_index_is_on_the_disk_before_it_has_its_name(index, tmp_path, monkeypatch):
    flushed, folder = [], tmp_path / "cann"
    monkeypatch.setattr(
        index_store.workdir, "flush", lambda path: flushed.append((path.name, folder.exists()))
    )
    index_store.save(index, folder)
    assert ("new", False) in flushed


def test_an_index_is_built_once_for_its_settings_and_features(images, tmp_path, caplog):
    built = []

    def kept(settings, part=images, source="one"):
        def build():
            built.append(settings)
            return cann.build(*part, settings)

        place = index_store.Place(tmp_path / "cann", source)
        return index_store.load_or_build(place, settings, part[0].shape, build)

    first, again = kept(SETTINGS), kept(SETTINGS)
    assert built == [SETTINGS]
    assert isinstance(first.keys[:3], np.memmap)
    np.testing.assert_array_equal(first.keys, again.keys)
    other = dataclasses.replace(SETTINGS, seed=4)
    assert kept(other).settings == other
    assert kept(other, tuple(side[:3] for side in images)).count == 3
    assert built == [SETTINGS, other, other]
    assert index_store.load_or_build(None, SETTINGS, (), lambda: first) is first
    built.clear(), caplog.clear()
    moved = images[0][::-1].copy(), images[1]
    kept(SETTINGS)
    reversed_one = kept(SETTINGS, moved, "other")
    (message,) = caplog.messages
    assert re.match(f"{tmp_path}/cann: .*other features", message)
    np.testing.assert_array_equal(reversed_one.keys, cann.build(*moved, SETTINGS).keys)
    header = tmp_path / "cann" / "index.json"
    content = json.loads(header.read_text())
    del content["source"], content["checksum"]
    header.write_text(json.dumps(content))
    caplog.clear()
    kept(SETTINGS, moved, "other")
    (message,) = caplog.messages
    assert re.match(f"{tmp_path}/cann: .*earlier version", message)
    kept(SETTINGS, moved, "other")
    assert built == [SETTINGS, SETTINGS, SETTINGS]


@pytest.mark.parametrize("name", ["ivf", "cann"])
def test_flipped_bits_of_an_index_are_noticed_or_change_nothing(images, tmp_path, name):
    settings = {"cann": SETTINGS, "ivf": ivf.IvfSettings(4)}[name]
    folder = tmp_path / name
    build = {"cann": cann, "ivf": ivf}[name].build
    index_store.save(build(*images, settings), folder, "source")
    sides = images[0][:2], images[1][:2]

    def found():
        index = index_store.load(folder)
        if name == "cann":
            return cann.similarity(index, *sides)
        return ivf.similarity(index, *sides, SimilarityKernel("identity"), 4)

    expected, refused, tried = found(), 0, 0
    for path in sorted(folder.iterdir()):
        for _ in flips(path, 120):
            tried += 1
            try:
                same = np.array_equal(found(), expected)
            except UserError as error:
                refused += 1
                same = error.subject == "search index"
            assert same, path
    assert refused > 0.8 * tried
