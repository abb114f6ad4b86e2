import json

import numpy as np
import pytest

from delg_jax import workdir
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca
from delg_jax.features.storage import encodings
from delg_jax.features.storage.rows import Layout, StoredRows
from delg_jax.features.store import FeatureStore
from tests.folders import contents
from tests.stores import features, fill, names

COUNTS = [3, 0, 5, 1, 4, 2, 5]  # features of each image, of at most 5


@pytest.fixture
def rows(rng):
    return [features(rng, count) for count in COUNTS]


def assert_holds(store, rows):
    """Checks every number of a float32 store."""
    np.testing.assert_array_equal(
        store.global_descriptors(), [row.global_descriptor for row in rows]
    )
    local = store.local_features(0)
    counts = [int(row.local.mask.sum()) for row in rows]
    assert local.mask.shape == (len(rows), max(counts))
    assert local.mask.sum(axis=1).tolist() == counts
    for image, row in enumerate(rows):
        for name in LocalFeatures._fields:
            found, kept = getattr(local, name)[image], getattr(row.local, name)[row.local.mask]
            np.testing.assert_array_equal(found[: len(kept)], kept)
            assert not found[len(kept) :].any()


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("compression", [0, 1])
def test_ragged_features_come_back(tmp_path, rows, chunk, compression):
    fill(tmp_path, rows, chunk, compression=compression)
    store = FeatureStore(tmp_path)
    assert store.is_whole()
    assert len(store) == len(rows)
    assert store.names == names(7)
    assert store.skipped() == {}
    assert_holds(store, rows)


def test_the_strongest_are_read(tmp_path, rows):
    local = fill(tmp_path, rows).local_features(2)
    assert local.mask.sum(axis=1).tolist() == [min(count, 2) for count in COUNTS]
    np.testing.assert_array_equal(local.scores[2], rows[2].local.scores[:2])


def test_more_than_the_fullest_image_has_is_not_padded_further(tmp_path, rows):
    assert fill(tmp_path, rows).local_features(100).mask.shape == (7, 5)


def test_no_more_features_are_kept_than_the_layout_has(tmp_path, rows):
    local = fill(tmp_path, rows, max_features=2).local_features(0)
    assert local.mask.sum(axis=1).tolist() == [min(count, 2) for count in COUNTS]
    np.testing.assert_array_equal(local.descriptors[2], rows[2].local.descriptors[:2])


@pytest.mark.parametrize("encoding", encodings.ENCODINGS)
def test_descriptors_are_what_their_encoding_leaves(tmp_path, rows, encoding):
    store = fill(tmp_path, rows, local_encoding=encoding)
    local, packed = store.local_features(0), store.local_features(0, packed=True)
    for image, row in enumerate(rows):
        wanted = row.local.descriptors[row.local.mask]
        count = len(wanted)
        codes = encodings.encode(wanted, encoding)
        np.testing.assert_array_equal(
            local.descriptors[image, :count], encodings.decode(codes, encoding)
        )
        np.testing.assert_array_equal(packed.descriptors[image, :count], codes.values)
    assert local.locations.dtype == local.scores.dtype == np.float32


def test_half_precision_of_global_descriptors(tmp_path, rows):
    found = fill(tmp_path, rows, global_dtype="float16").global_descriptors()
    assert found.dtype == np.float32
    wanted = np.stack([row.global_descriptor for row in rows])
    np.testing.assert_array_equal(found, wanted.astype(np.float16))


def test_sizes_come_back(tmp_path, rows):
    assert fill(tmp_path, rows).sizes()[:, 0].tolist() == [0, 0, 0, 3, 3, 3, 6]


def test_rows_larger_than_memory_stay_on_disk(tmp_path, rows):
    whole = fill(tmp_path, rows)
    store = FeatureStore(tmp_path, memory_megabytes=1e-5)
    wanted, found = whole.local_features(0), store.local_features(0)
    assert isinstance(found.descriptors, StoredRows)
    assert isinstance(store.global_descriptors(), StoredRows)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    np.testing.assert_array_equal(
        found.descriptors[np.array([[6, 2]])], wanted.descriptors[[[6, 2]]]
    )
    np.testing.assert_array_equal(found.locations[2:4], wanted.locations[2:4])
    np.testing.assert_array_equal(np.asarray(found.descriptors), wanted.descriptors)
    np.testing.assert_array_equal(store.global_descriptors()[-1], whole.global_descriptors()[-1])


def test_skipped_images_keep_their_place(tmp_path, rows):
    for skipped in (1, 3, 4, 5):  # the whole second chunk, too
        rows[skipped] = f"reason {skipped}"
    store = fill(tmp_path, rows)
    assert store.skipped() == {f"image{i}": f"reason {i}" for i in (1, 3, 4, 5)}
    assert store.global_descriptors().shape == (7, 6)
    assert not store.global_descriptors()[3:6].any()
    local = store.local_features(0)
    assert local.mask.sum(axis=1).tolist() == [3, 0, 5, 0, 0, 0, 5]
    np.testing.assert_array_equal(local.descriptors[6], rows[6].local.descriptors)


def test_a_store_in_which_all_was_skipped(tmp_path):
    store = fill(tmp_path, ["broken", "ü" * 150])
    assert store.skipped() == {"image0": "broken", "image1": "ü" * 100}  # of 200 bytes
    assert store.global_descriptors().shape == (2, 0)
    with pytest.raises(UserError, match="^feature store = .*local features"):
        store.local_features(0)


def test_images_without_any_feature(tmp_path, rng):
    local = fill(tmp_path, [features(rng, 0), features(rng, 0)]).local_features(10)
    assert local.mask.shape[0] == 2
    assert not local.mask.any()
    assert local.descriptors.shape[2] == 8


def test_an_empty_store(tmp_path):
    fill(tmp_path, [])
    store = FeatureStore(tmp_path)
    assert len(store) == 0
    assert store.names == []
    assert store.skipped() == {}


def test_a_network_without_local_head(tmp_path, rows):
    store = fill(tmp_path, [row._replace(local=None) for row in rows])
    assert store.global_descriptors().shape == (7, 6)
    with pytest.raises(UserError, match=r"config\.model\.local_head=True"):
        store.local_features(0)


def test_a_store_without_global_descriptors(tmp_path, rows):
    rows = [row._replace(global_descriptor=np.zeros(0, np.float32)) for row in rows]
    store = fill(tmp_path, [*rows[:3], "reason", *rows[4:]])
    assert store.local_features(0).mask.sum(axis=1).tolist() == [3, 0, 5, 0, 4, 2, 5]
    with pytest.raises(UserError, match="^feature store = .*global descriptors"):
        store.global_descriptors()


def test_any_order_of_writing_gives_the_same_bytes(tmp_path, rows):
    rows[3:6] = ["reason"] * 3  # a chunk that tells no width, written first
    whole = fill(tmp_path / "whole", rows)
    part = FeatureStore.prepare(tmp_path / "part", names(7), whole.layout)
    assert part.missing() == [range(0, 3), range(3, 6), range(6, 7)]
    for start in (3, 0):
        run = range(start, start + 3)
        part.write(run, [rows[i] for i in run], np.full((3, 2), start))
    assert part.missing() == [range(6, 7)]
    with pytest.raises(UserError, match="part': .*resume"):
        FeatureStore(tmp_path / "part")
    with pytest.raises(UserError, match="1 images"):
        part.finish()
    fill(tmp_path / "part", rows)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


@pytest.mark.parametrize("part", [16, 100, 2**16])
def test_images_skipped_before_others_of_their_chunk_have_no_features(
    tmp_path, rng, monkeypatch, part
):
    monkeypatch.setattr("delg_jax.features.store._PART_BYTES", part)
    store = FeatureStore.prepare(tmp_path, names(5), Layout(4, max_features=5))
    store.write(range(0, 2), ["broken", "broken"])
    store.write(range(2, 4), [features(rng, 5), "broken"])
    store.write(range(4, 5), ["broken"])
    store.finish()
    found = FeatureStore(tmp_path).local_features(0)
    assert found.mask.sum(axis=1).tolist() == [0, 0, 5, 0, 0]
    assert not np.asarray(found.descriptors)[[0, 1, 3, 4]].any()


def test_a_store_whose_chunks_have_no_parts_is_read_and_appended_to(tmp_path, rng, monkeypatch):
    images = [features(rng, 5) for _ in range(6)]
    monkeypatch.setattr("delg_jax.features.store._PART_BYTES", 0)  # as earlier versions
    fill(tmp_path, images[:4])
    monkeypatch.setattr("delg_jax.features.store._PART_BYTES", 64)
    old = fill(tmp_path, images)
    whole = fill(tmp_path / "new", images)
    metadata = (tmp_path / "descriptors" / "zarr.json").read_text()
    assert "sharding" not in metadata
    assert "sharding" in (tmp_path / "new" / "descriptors" / "zarr.json").read_text()
    for one, other in zip(old.local_features(3), whole.local_features(3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failed_write_leaves_its_rows_missing(tmp_path, rng):
    store = FeatureStore.prepare(tmp_path, ["one"], Layout(1, "sign", max_features=5))
    with pytest.raises(UserError, match="local_encoding.* 8 .* 12"):
        store.write(range(1), [features(rng, 2, dim=12)])
    assert store.missing() == [range(1)]


def test_descriptors_of_two_lengths_are_refused(tmp_path, rng):
    store = FeatureStore.prepare(tmp_path, names(2), Layout(1, max_features=5))
    store.write(range(1), [features(rng, 2)])
    with pytest.raises(UserError, match="descriptors of shape"):
        store.write(range(1, 2), [features(rng, 2, dim=4)])


@pytest.mark.parametrize("longer", [False, True])
def test_images_are_added_without_touching_whole_chunks(tmp_path, rng, rows, longer):
    fill(tmp_path, rows[:4])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/c.0.*")}
    before = {path: time for path, time in before.items() if "names" not in path.parent.name}
    more = ["long" * 40] if longer else ["image4"]
    store = FeatureStore.prepare(tmp_path, names(4) + more, Layout(3, max_features=5))
    assert store.missing() == [range(4, 5)]
    store.write(range(4, 5), [rows[4]])
    store.finish()
    store = FeatureStore(tmp_path)
    assert store.names == names(4) + more
    assert_holds(store, rows[:5])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(tmp_path.glob("names_*"))) == 1


def test_deleted_images_are_gone_and_nothing_else_moves(tmp_path, rows):
    store = fill(tmp_path, rows)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/c.*")}
    store.delete(["image1", "image5"])
    kept = [row for number, row in enumerate(rows) if number not in (1, 5)]
    for opened in (store, FeatureStore(tmp_path)):
        assert len(opened) == 5
        assert opened.names == ["image0", "image2", "image3", "image4", "image6"]
        assert opened.sizes()[:, 0].tolist() == [0, 0, 3, 3, 6]
        assert_holds(opened, kept)
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.parent.name for path in changed} == {"state"}
    store.delete(["image0"])
    assert_holds(store, kept[1:])
    with pytest.raises(UserError, match="image5"):
        store.delete(["image5"])
    store.append(["image5"])
    assert store.missing() == [range(7, 8)]


def test_other_images_or_another_layout_are_refused(tmp_path, rows):
    fill(tmp_path, rows)
    layout = Layout(3, max_features=5)
    for wrong in (names(6), names(7)[::-1], ["other", *names(7)[1:]]):
        with pytest.raises(UserError, match="other images"):
            FeatureStore.prepare(tmp_path, wrong, layout)
    with pytest.raises(UserError, match="chunk_images=3"):
        FeatureStore.prepare(tmp_path, names(7), layout._replace(chunk_images=4))


def test_an_absent_store_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="feature store = '.*delg extract"):
        FeatureStore(tmp_path)


def test_older_and_newer_formats_are_refused(tmp_path, rows):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="format 1.* 2"):
        FeatureStore.prepare(tmp_path, [], Layout())
    store = fill(tmp_path / "new", rows)
    index = store.folder / "store.json"
    workdir.write_json(index, {**json.loads(index.read_text()), "format": 3})
    with pytest.raises(UserError, match="format 3.* 2"):
        FeatureStore(store.folder)


@pytest.mark.parametrize("damage", ["flip", "cut", "absent"])
def test_a_damaged_chunk_is_refused_and_named(tmp_path, rows, damage):
    fill(tmp_path, rows)
    path = tmp_path / "descriptors" / "c.1.0.0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:10])
    with pytest.raises(UserError, match=r"descriptors/c\.1\.0\.0"):
        FeatureStore(tmp_path).local_features(0)


def test_the_projection_is_kept(tmp_path, rng):
    store = FeatureStore.prepare(tmp_path, ["one"], Layout())
    assert store.read_pca() is None
    wanted = Pca(rng.random(4, np.float32), rng.random((4, 2), np.float32))
    store.write_pca(wanted)
    for found, value in zip(store.read_pca(), wanted, strict=True):
        np.testing.assert_array_equal(found, value)
