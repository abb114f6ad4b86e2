import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca
from delg_jax.features.store import FeatureStore

COUNTS = [3, 0, 5, 1, 4, 2, 5]  # features of each image, of at most 5


def features(rng, count, padded=5, dim=4):
    """An image with `count` features, best first, and rubbish where the mask is False."""
    return Features(
        rng.normal(size=6).astype(np.float32),
        LocalFeatures(
            locations=rng.random((padded, 2), np.float32),
            scales=rng.random(padded, np.float32),
            scores=np.sort(rng.random(padded, np.float32))[::-1],
            descriptors=rng.normal(size=(padded, dim)).astype(np.float32),
            mask=np.arange(padded) < count,
        ),
    )


def fill(folder, rows, chunk=3, dtype="float32", only=None):
    """Writes rows to a new store; `only` chunks if given."""
    folder.mkdir(exist_ok=True)
    store = FeatureStore(folder, [f"image{i}" for i in range(len(rows))], chunk)
    for number, indices in enumerate(store.chunks):
        if only is None or number in only:
            store.write(number, [rows[i] for i in indices], dtype)
    store.finish()
    return store


@pytest.fixture
def rows(rng):
    return [features(rng, count) for count in COUNTS]


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_ragged_features_come_back(tmp_path, rows, chunk):
    fill(tmp_path, rows, chunk)
    store = FeatureStore(tmp_path)
    assert store.is_whole()
    assert len(store) == len(rows)
    assert store.skipped() == {}
    np.testing.assert_array_equal(
        store.global_descriptors(), [row.global_descriptor for row in rows]
    )
    local = store.local_features(0)
    assert local.mask.shape == (7, 5)
    assert local.mask.sum(axis=1).tolist() == COUNTS
    for image, row in enumerate(rows):
        for found, wanted in zip(local, row.local, strict=True):
            kept = wanted[row.local.mask]
            np.testing.assert_array_equal(found[image, : len(kept)], kept)
            assert not found[image, len(kept) :].any()


def test_the_strongest_are_read(tmp_path, rows):
    local = fill(tmp_path, rows).local_features(2)
    assert local.mask.sum(axis=1).tolist() == [min(count, 2) for count in COUNTS]
    np.testing.assert_array_equal(local.scores[2], rows[2].local.scores[:2])


def test_more_than_the_fullest_image_has_is_not_padded_further(tmp_path, rows):
    assert fill(tmp_path, rows).local_features(100).mask.shape == (7, 5)


def test_half_precision_on_disk(tmp_path, rows):
    local = fill(tmp_path, rows, dtype="float16").local_features(0)
    assert local.descriptors.dtype == np.float16
    assert local.locations.dtype == local.scores.dtype == np.float32
    wanted = rows[2].local.descriptors
    np.testing.assert_allclose(local.descriptors[2], wanted, rtol=1e-3)


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
    store = fill(tmp_path, ["broken", "broken"])
    assert store.skipped() == {"image0": "broken", "image1": "broken"}
    assert store.global_descriptors().shape == (2, 0)
    with pytest.raises(UserError, match="holds no local features"):
        store.local_features(0)


def test_images_without_any_feature(tmp_path, rng):
    local = fill(tmp_path, [features(rng, 0), features(rng, 0)]).local_features(10)
    assert local.mask.shape[0] == 2
    assert not local.mask.any()
    assert local.descriptors.shape[2] == 4


def test_a_network_without_local_head(tmp_path, rows):
    store = fill(tmp_path, [row._replace(local=None) for row in rows])
    assert store.global_descriptors().shape == (7, 6)
    with pytest.raises(UserError, match=r"config\.model\.local_head=True"):
        store.local_features(0)


def test_a_store_without_global_descriptors(tmp_path, rows):
    rows = [row._replace(global_descriptor=np.zeros(0, np.float32)) for row in rows]
    store = fill(tmp_path, [*rows[:3], "reason", *rows[4:]])
    assert store.local_features(0).mask.sum(axis=1).tolist() == [3, 0, 5, 0, 4, 2, 5]
    with pytest.raises(UserError, match=r"holds no global descriptors; set config\.extract"):
        store.global_descriptors()


def test_missing_chunks_are_known_and_fill_up_to_the_same_bytes(tmp_path, rows):
    whole = fill(tmp_path / "whole", rows)
    part = fill(tmp_path / "part", rows, only=(0, 2))
    assert part.missing() == [1]
    assert not part.is_whole()
    part.write(1, rows[3:6], "float32")
    assert part.is_whole()
    for path in whole.folder.iterdir():
        assert (part.folder / path.name).read_bytes() == path.read_bytes()


def test_a_failed_write_leaves_nothing(tmp_path, rows):
    store = FeatureStore(tmp_path, ["one"], 1)
    with pytest.raises(TypeError):
        store.write(0, [rows[0]], "no such type")
    assert list(tmp_path.iterdir()) == []
    assert store.missing() == [0]


def test_an_absent_store_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="must be a finished store; delg extract makes one"):
        FeatureStore(tmp_path)


def test_a_damaged_chunk_is_a_user_error(tmp_path, rows):
    store = fill(tmp_path, rows)
    path = tmp_path / "chunk_000001.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"chunk_000001\.npz.*delete it"):
        FeatureStore(store.folder).global_descriptors()


def test_the_projection_is_kept(tmp_path, rng):
    store = FeatureStore(tmp_path, ["one"], 1)
    assert store.read_pca() is None
    wanted = Pca(rng.random(4, np.float32), rng.random((4, 2), np.float32))
    store.write_pca(wanted)
    for found, value in zip(store.read_pca(), wanted, strict=True):
        np.testing.assert_array_equal(found, value)
