import hashlib
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from delg_jax.data import sources
from delg_jax.data.image_files import LeftOut
from delg_jax.data.sources import FileSource, JoinedSource
from delg_jax.features.origins import CurrentImages, rows_to_images
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from tests.features.test_extraction import extract_missing
from tests.folders import contents
from tests.photographs import draw, save
from tests.stores import features, fill
from tests.tiny import retrieval_config

COUNT = 5


def listed(folder, names=None):
    names = names or sorted(path.name for path in folder.iterdir())
    return FileSource(folder, names, np.full(len(names), -1))


@pytest.fixture
def photos(tmp_path):
    for number in range(COUNT):
        save(tmp_path / "photos" / f"{number}.png", draw(number, 40 + number, 64))
    return tmp_path / "photos"


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read."""
    names = []
    original = FileSource.read

    def read(self, index):
        names.append(self.names[index])
        return original(self, index)

    monkeypatch.setattr(FileSource, "read", read)
    return names


def extracted(source, folder, boxes=None):
    store = FeatureStore.prepare(folder, source.names, Layout(2, max_features=2))
    return extract_missing(source, retrieval_config(folder).data, store, boxes=boxes)


def changed(source, store, boxes=None):
    return CurrentImages(source, boxes).compare(store).changed.tolist()


def test_nothing_is_read_where_nothing_changed(photos, tmp_path, reads):
    store = extracted(listed(photos), tmp_path / "store")
    reads.clear()
    found = CurrentImages(listed(photos)).compare(store)
    assert [len(rows) for rows in found[:4]] == [0, 0, 0, 0]
    assert found.unknown == 0
    assert reads == []


def test_size_times_and_content_are_recorded(photos, tmp_path):
    origins = extracted(listed(photos), tmp_path / "store").origins()
    status = (photos / "3.png").stat()
    assert origins["known"].tolist() == [1] * COUNT
    assert origins["stamp"][3].tolist() == [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    content = hashlib.sha256((photos / "3.png").read_bytes()).digest()
    assert origins["content"][3].tobytes() == content[:16]
    assert np.isnan(origins["box"]).all()


@pytest.mark.parametrize("alike", [False, True], ids=["another", "size and time as before"])
def test_another_image_under_the_same_name_is_changed(photos, tmp_path, alike):
    store = extracted(listed(photos), tmp_path / "store")
    before = (photos / "2.png").stat()
    data = bytearray((photos / "2.png").read_bytes())
    if alike:
        data[-20] ^= 1
        (photos / "2.png").write_bytes(data)
        os.utime(photos / "2.png", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (photos / "2.png").stat().st_size == before.st_size
    else:
        save(photos / "2.png", draw(99, 50, 50))
    assert changed(listed(photos), store) == [2]


def test_a_touched_or_copied_image_is_read_once_and_unchanged(photos, tmp_path, reads):
    store = extracted(listed(photos), tmp_path / "store")
    shutil.copytree(photos, tmp_path / "copy")
    reads.clear()
    found = CurrentImages(listed(tmp_path / "copy")).compare(store)
    assert found.changed.tolist() == []
    assert found.same.tolist() == list(range(COUNT))
    assert sorted(reads) == listed(photos).names
    digest = store.digest()
    store.record_origins(found.same, found.origins)
    reads.clear()
    again = CurrentImages(listed(tmp_path / "copy")).compare(FeatureStore(store.folder))
    assert [len(rows) for rows in again[:4]] == [0, 0, 0, 0]
    assert reads == []
    assert FeatureStore(store.folder).digest() == store.digest() == digest


def test_images_of_a_store_of_an_earlier_version_are_recognised(photos, tmp_path):
    """Its digests were made by BLAKE2b."""
    store = extracted(listed(photos), tmp_path / "store")
    origins = store.origins()
    for number, name in enumerate(store.names):
        digest = hashlib.blake2b((photos / name).read_bytes(), digest_size=16).digest()
        origins["content"][number] = np.frombuffer(digest, np.uint8)
    store.record_origins(np.arange(COUNT), origins)
    shutil.copytree(photos, tmp_path / "copy")
    save(tmp_path / "copy" / "2.png", draw(99, 50, 50))
    found = CurrentImages(listed(tmp_path / "copy")).compare(FeatureStore(store.folder))
    assert found.changed.tolist() == [2]
    assert found.same.tolist() == [0, 1, 3, 4]


def test_another_box_is_a_change_and_nothing_is_read(photos, tmp_path, reads):
    boxes = [(0, 0, 20 + number, 30) for number in range(COUNT)]
    store = extracted(listed(photos), tmp_path / "store", boxes)
    reads.clear()
    assert changed(listed(photos), store, boxes) == []
    boxes[1] = (0.0, 0.5, 21.0, 30.0)
    assert changed(listed(photos), store, boxes) == [1]
    assert changed(listed(photos), store) == list(range(COUNT))
    assert reads == []


def test_absent_images_are_not_changed_but_counted(photos, tmp_path):
    store = extracted(listed(photos), tmp_path / "store")
    source = listed(photos)
    (photos / "1.png").unlink()
    found = CurrentImages(source).compare(store)
    assert (found.changed.tolist(), found.absent.tolist()) == ([], [1])


def test_an_image_that_was_absent_is_changed_once_it_is_there(photos, tmp_path):
    source = listed(photos)
    shutil.move(photos / "1.png", tmp_path / "1.png")
    store = FeatureStore.prepare(tmp_path / "store", source.names, Layout(2, max_features=2))
    data = retrieval_config(tmp_path).data.copy_and_resolve_references().unlock()
    data.max_skipped = 1
    extract_missing(source, data, store)
    assert changed(source, store) == []
    shutil.move(tmp_path / "1.png", photos / "1.png")
    assert changed(source, store) == [1]


def test_of_a_store_of_before_images_are_taken_as_they_are(photos, tmp_path, rng, reads):
    names = listed(photos).names
    store = FeatureStore.prepare(tmp_path / "store", names, Layout(2, max_features=5))
    for run in store.missing():
        store.write(run, [features(rng, 2) for _ in run])
    store.finish()
    assert not (store.folder / "origins").exists()
    found = CurrentImages(listed(photos)).compare(store)
    assert (found.changed.tolist(), found.unknown) == ([], COUNT)
    store.record_origins(found.same, found.origins)
    assert CurrentImages(listed(photos)).compare(store).unknown == 0
    os.chmod(photos / "0.png", 0o600)  # other times of the file, not of its content
    assert CurrentImages(listed(photos)).compare(store).same.tolist() == [0]
    save(photos / "2.png", draw(99, 50, 50))
    assert changed(listed(photos), store) == [2]
    assert reads == []


def test_a_changed_image_is_written_again_and_the_store_is_as_new(photos, tmp_path):
    store = extracted(listed(photos), tmp_path / "store")
    before = store.digest()
    save(photos / "2.png", draw(99, 50, 50))
    store.mark_missing(np.array([2]))
    assert store.missing() == [range(2, 3)]
    again = extracted(listed(photos), tmp_path / "store")
    assert again.digest() != before
    assert contents(again.folder) == contents(extracted(listed(photos), tmp_path / "new").folder)


def test_an_image_that_becomes_unusable_loses_its_features(tmp_path, rng):
    rows = [features(rng, 3) for _ in range(4)]
    store = fill(tmp_path / "store", rows, 2)
    store.mark_missing(np.array([1]))
    store.write(range(1, 2), ["broken"], np.zeros((1, 2)))
    store.finish()
    assert not store.global_descriptors()[1].any()
    assert store.local_features(0).mask.sum(axis=1).tolist() == [3, 0, 3, 3]
    rows[1] = "broken"
    new = FeatureStore.prepare(tmp_path / "new", store.names, store.layout)
    for run in new.missing():
        sizes = np.array([[0, 0] if row == 1 else [run.start] * 2 for row in run])
        new.write(run, [rows[i] for i in run], sizes)
    new.finish()
    assert store.digest() == new.digest()


def test_images_of_one_name_are_told_apart_by_their_order(tmp_path, rng):
    store = FeatureStore.prepare(tmp_path, ["a", "b", "a", "c"], Layout(2, max_features=5))
    assert rows_to_images(store, ["a", "b", "a", "c"]).tolist() == [0, 1, 2, 3]
    assert rows_to_images(store, ["c", "a", "a", "d"]).tolist() == [1, -1, 2, 0]
    for run in store.missing():
        store.write(run, [features(rng, 2) for _ in run])
    store.finish()
    store.delete(["b"])
    assert rows_to_images(store, ["a", "a", "c"]).tolist() == [0, -1, 1, 2]
    store.delete(["a"])
    assert store.names == ["c"]


def test_images_in_a_tar_are_compared_too(photos, tmp_path, monkeypatch):
    def packed(name):
        with tarfile.open(tmp_path / name, "w") as archive:
            for path in sorted(photos.iterdir()):
                member = archive.gettarinfo(path, path.name)
                member.mtime = 0  # as reproducible archives have it
                with path.open("rb") as file:
                    archive.addfile(member, file)
        return sources.open_tar(tmp_path / name, "--images", LeftOut())

    store = extracted(packed("a.tar"), tmp_path / "store")
    assert changed(sources.open_tar(tmp_path / "a.tar", "--images", LeftOut()), store) == []
    data = bytearray((photos / "3.png").read_bytes())
    data[-20] ^= 1
    (photos / "3.png").write_bytes(data)
    assert changed(packed("b.tar"), store) == [3]
    (tmp_path / "a.tar").unlink()
    (tmp_path / "b.tar").rename(tmp_path / "a.tar")
    source = packed("a.tar")
    assert changed(source, store) == [3]
    (tmp_path / "a.tar").unlink()
    assert len(CurrentImages(source).compare(store).absent) == COUNT


def test_joined_sources_are_compared_one_by_one(photos, tmp_path):
    names = listed(photos).names
    source = JoinedSource(listed(photos, names[:2]), listed(photos, names[2:]))
    np.testing.assert_array_equal(source.stamps([4, 0, 3]), listed(photos).stamps([4, 0, 3]))
    store = extracted(source, tmp_path / "store")
    save(photos / "4.png", draw(99, 50, 50))
    assert changed(pickle.loads(pickle.dumps(source)), store) == [4]


def test_many_files_have_the_stamps_of_few(photos, monkeypatch):
    names = listed(photos).names * 3
    source = listed(photos, names)
    wanted = source.stamps(range(len(names)))
    monkeypatch.setattr("delg_jax.file_stamps._STATUS_BLOCK", 4)
    np.testing.assert_array_equal(source.stamps(range(len(names))), wanted)
    assert (wanted > 0).all()
