import os

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.formats import ames, delf
from delg_jax.features.formats.image_order import AbsentImageError
from delg_jax.features.formats.imported import ImportedFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.index import Layout
from delg_jax.features.store import FeatureStore

h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")

NAMES = ["jpg/a.jpg", "jpg/b.jpg", "jpg/c.jpg"]
DIMENSION, MOST = 16, 5
WHOLE = np.full((2, 3, 8), 7.0) * [1, 1, 1, 0, 1, 1, 1, 1]  # two rows of three features


def features_of(seed, count=4):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    return LocalFeatures(
        (50 * rng.random((count, 2))).astype(np.float32),
        rng.choice(np.float32([0.5, 1, 2]), count),
        np.sort(rng.random(count).astype(np.float32))[::-1],
        vectors.astype(np.float32),
        np.ones(count, bool),
    )


def write_ours(folder, bits=False, store="database"):
    """Three images, of which the second has nothing."""
    writer = ames.ArrayWriter(folder, store, 3, MOST, (DIMENSION, 8), bits)
    images = [
        ames.Image(name, np.full(8, i), features_of(i), (60, 80)) for i, name in enumerate(NAMES)
    ]
    images[1] = images[1]._replace(descriptor=None, local=None)
    writer.write(images)
    return folder


def write_theirs(path, rows, names=None, dtype=np.float32):
    """A file as AMES writes it: rows of x, y, scale, mask, weight, and the descriptor."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=np.asarray(rows, dtype))
    if names is not None:
        path.with_suffix(".txt").write_text("\n".join(names) + "\n")
    return path


def padded(rows, most=MOST):
    rows = np.asarray(rows, np.float32)
    row = np.zeros((most, rows.shape[1]), np.float32)
    row[:, 3] = 1
    row[: len(rows)] = rows
    return row


def local(path, name, store="database"):
    with ames.reading(ames.files(path, store), "local") as reader:
        return reader.read_local(name)


def test_what_is_written_is_read_to_the_bit(tmp_path):
    write_ours(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    files = {"delg_gallery_local.hdf5", "delg_gallery_global.hdf5", "test_gallery.txt"}
    assert names == files
    for number, name in ((0, "a"), (2, "jpg/c.jpg")):
        found, wanted = local(tmp_path, name), features_of(number)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
        with ames.reading(ames.files(tmp_path, "database"), "global") as reader:
            np.testing.assert_array_equal(reader.read_global(name), np.full(8, number))
    assert len(local(tmp_path, "b").mask) == 0


def test_the_columns_are_those_of_ames(tmp_path):
    """What its programs read: `features[:, :, 3]` as the padding, `features[..., 5:]`."""
    write_ours(tmp_path)
    with h5py.File(tmp_path / "delg_gallery_local.hdf5") as file:
        rows = file["features"][()]
    assert rows.shape == (3, MOST, 5 + DIMENSION)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, :, 3], [[0, 0, 0, 0, 1], [1] * 5, [0, 0, 0, 0, 1]])
    wanted = features_of(2)
    np.testing.assert_array_equal(rows[2, :4, 5:], wanted.descriptors)
    np.testing.assert_array_equal(rows[2, :4, :2], wanted.locations[:, ::-1])
    np.testing.assert_array_equal(rows[2, :4, 2], wanted.scales)
    np.testing.assert_array_equal(rows[2, :4, 4], wanted.scores)
    lines = (tmp_path / "test_gallery.txt").read_text().splitlines()
    assert lines == [f"{name},80,60" for name in NAMES]


def test_bits_are_those_of_elvis(tmp_path):
    """Its programs unpack `descriptor`, and take 2 x - 1."""
    write_ours(tmp_path, bits=True)
    with h5py.File(tmp_path / "delg_gallery_local.hdf5") as file:
        rows = file["features"][()]
    assert rows["descriptor"].shape == (3, MOST, DIMENSION // 8)
    assert rows["metadata"].shape == (3, MOST, 5)
    wanted = features_of(0)
    signs = 2.0 * np.unpackbits(rows["descriptor"][0], axis=-1) - 1
    np.testing.assert_array_equal(signs[:4], np.where(wanted.descriptors > 0, 1, -1))
    found = local(tmp_path, "a")
    np.testing.assert_array_equal(found.descriptors, signs[:4])
    np.testing.assert_array_equal(found.locations, wanted.locations)


def test_records_of_features_are_read_too(tmp_path):
    """[N, K] records of 5 numbers and D / 8 bytes, which index in the same way."""
    rows = np.zeros((1, 2), [("metadata", "f2", 5), ("descriptor", "u1", 2)])
    rows["metadata"][0] = [[7, 5, 1, 0, 3], [0, 0, 0, 1, 0]]
    rows["descriptor"][0, 0] = [128, 1]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = rows
    (tmp_path / "a.txt").write_text("a\n")
    found = local(tmp_path / "a.h5", "a")
    assert found.locations.tolist() == [[5, 7]]
    assert found.descriptors[0].tolist() == [1.0, *[-1.0] * 14, 1.0]


def test_the_best_come_first_and_padding_is_left_out(tmp_path):
    rows = [[3, 4, 2, 0, 0.1, 1, 0], [90, 1, 2, 1, 9, 5, 5], [7, 8, 4, 0, 0.9, 0, 1]]
    write_theirs(tmp_path / "a.h5", [rows], ["a.jpg"])
    found = local(tmp_path / "a.h5", "a")
    assert found.locations.tolist() == [[8, 7], [4, 3]]
    assert found.scales.tolist() == [4, 2]
    np.testing.assert_allclose(found.scores, [0.9, 0.1])
    assert found.descriptors.tolist() == [[0, 1], [1, 0]]


def test_published_folders_need_no_change(tmp_path):
    """Lists beside the files name the rows; half precision and numbers of levels, as published."""
    for word, names in (("gallery", ["x/a.jpg", "x/b.jpg"]), ("query", ["x/q.jpg"])):
        rows = [padded([[5, 6, 0, 0, 2, 1, 0], [7, 9, 2, 0, 1, 0, 1]]) for _ in names]
        write_theirs(tmp_path / f"dinov2_{word}_local.hdf5", rows, dtype=np.float16)
        (tmp_path / f"test_{word}.txt").write_text("\n".join(names))
    assert local(tmp_path, "a").scales.tolist() == [1, 1]
    assert local(tmp_path, "q", "queries").locations.tolist() == [[6, 5], [9, 7]]
    with pytest.raises(AbsentImageError):
        local(tmp_path, "q", "database")


def test_shares_of_the_image_become_pixels(tmp_path):
    rows = [padded([[0.5, 0.25, 1, 0, 2, 1, 0], [1, 1, 1, 0, 1, 0, 1]])]
    path = write_theirs(tmp_path / "a.h5", rows, ["a.jpg,200,100"])
    assert local(path, "a").locations.tolist() == [[25, 100], [100, 200]]
    path.with_suffix(".txt").write_text("a.jpg\n")
    with pytest.raises(UserError, match="WIDTH,HEIGHT"):
        local(path, "a")


def test_parts_of_a_folder_are_one_set(tmp_path):
    row = padded([[5, 6, 1, 0, 2, 1, 0], [7, 9, 1, 0, 1, 0, 1]])
    write_theirs(tmp_path / "d_xaa_local.hdf5", [row], ["a.jpg"])
    write_theirs(
        tmp_path / "d_xab_local.hdf5", [row, 2 * row * [1, 1, 1, 0.5, 1, 1, 1]], ["b.jpg", "c.jpg"]
    )
    assert local(tmp_path, "c").locations.tolist() == [[12, 10], [18, 14]]
    (tmp_path / "d_xab_local.txt").write_text("a.jpg\nc.jpg\n")
    with pytest.raises(UserError, match="row 0 of .*xaa.* and row 0 of .*xab"):
        local(tmp_path, "a")


def _no_names(path):
    path.with_suffix(".txt").unlink()


def _too_few_names(path):
    path.with_suffix(".txt").write_text("a.jpg\n")


def _replace(path, values):
    with h5py.File(path, "a") as file:
        del file["features"]
        file["features"] = values


def _bytes_without_mask(path):
    _replace(path, np.zeros((2, 3, 4), np.uint8))


def _too_narrow(path):
    _replace(path, np.zeros((2, 3, 4), np.float32))


def _other_mask(path):
    _replace(path, np.full((2, 3, 8), 0.5, np.float32))


def _not_finite(path):
    _replace(path, np.full((2, 3, 8), np.nan, np.float32))


def _other_records(path):
    _replace(path, np.zeros(2, [("metadata", "f4", (3, 5)), ("bits", "u1", (3, 2))]))


def _texts(path):
    _replace(path, ["a", "b"])


def _virtual(path):
    """As the authors' script merges parts: other files would be opened."""
    other = path.with_name("other.hdf5")
    write_theirs(other, WHOLE)
    layout = h5py.VirtualLayout((2, 3, 8), "float32")
    layout[:] = h5py.VirtualSource(str(other), "features", (2, 3, 8))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)


def _link(path):
    other = path.with_name("other.hdf5")
    write_theirs(other, WHOLE)
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(str(other), "features")


@pytest.mark.parametrize(
    "damage",
    [
        _no_names,
        _too_few_names,
        _bytes_without_mask,
        _too_narrow,
        _other_mask,
        _not_finite,
        _other_records,
        _texts,
        _virtual,
        _link,
    ],
)
def test_what_is_not_such_a_file_is_one_line(tmp_path, damage):
    path = write_theirs(tmp_path / "a.hdf5", WHOLE, ["a.jpg", "b.jpg"])
    assert len(local(path, "a").mask) == 3
    damage(path)
    with pytest.raises(UserError, match=r"a\.hdf5") as caught:
        local(path, "a")
    assert "\n" not in str(caught.value)


def imported(tmp_path, kind, path):
    paths = {"local": "", "global": "", kind: str(path)}
    return ImportedFeatures(
        *paths.values(), Layout(local_encoding="float16"), {"database": ["a", "c"]}
    )


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_and_a_folder_are_imported(tmp_path, whole):
    write_ours(tmp_path)
    path = tmp_path if whole else tmp_path / "delg_gallery_local.hdf5"
    features = imported(tmp_path, "local", path)
    store = FeatureStore.prepare(tmp_path / "store", ["a", "c"], Layout(2, max_features=5))
    features.import_to_store("database", store, 0)
    found = store.local_features(0)
    np.testing.assert_array_equal(found.locations[1], features_of(2).locations)
    before = features.digest()
    lines = tmp_path / "test_gallery.txt"
    os.utime(lines, ns=(1, 1))
    lines.write_text("other\n")
    assert features.digest() != before


@pytest.mark.parametrize("name", ["nn_dinov2.pkl", "dinov2_gallery_global.pt"])
def test_pickles_are_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match="pickle.*gallery_global.hdf5"):
        imported(tmp_path, "global", tmp_path / name)


def test_official_files_beside_come_first(tmp_path):
    """As before, a folder of `.delg_local` files may hold other files."""
    write_theirs(tmp_path / "other.h5", WHOLE)
    with pytest.raises(UserError, match="other.h5"):
        imported(tmp_path, "local", tmp_path)._read_dimensions()
    for name in ("a", "c"):
        delf.write_local(tmp_path / f"{name}.delg_local", features_of(0))
    features = imported(tmp_path, "local", tmp_path)
    before = features.digest()
    features._read_dimensions()
    os.utime(tmp_path / "other.h5", ns=(1, 1))
    assert features.digest() == before
