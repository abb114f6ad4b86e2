import sys

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.formats import hloc
from delg_jax.features.formats.image_order import AbsentImageError
from delg_jax.features.local_features import LocalFeatures

h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")

KEYPOINTS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)  # (x, y)
DESCRIPTORS = np.array([[1, 2, 3], [4, 5, 6]], np.float16)  # a column for each keypoint
SCORES = np.array([0.5, 0.75, 0.5], np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.h5"


def put(path, name, **datasets):
    """Adds the group of an image as hloc does."""
    with h5py.File(path, "a") as file:
        group = file.require_group(name)
        for field, value in datasets.items():
            group.create_dataset(field, data=value)


def whole(path, name):
    put(path, name, keypoints=KEYPOINTS, descriptors=DESCRIPTORS, scores=SCORES)


def read(path, name, part="local"):
    with hloc.reading(path) as reader:
        return reader.read_local(name) if part == "local" else reader.read_global(name)


def refused(path, name, names, part="local"):
    """Asserts that one line names the file, and what else must be named."""
    with pytest.raises(UserError, match=rf"features\.h5': .*{names}") as caught:
        read(path, name, part)
    assert not isinstance(caught.value, AbsentImageError)
    assert "\n" not in str(caught.value)


def test_features_are_read_best_first(path):
    whole(path, "a.jpg")
    local = read(path, "a.jpg")
    assert local.locations.tolist() == [[4, 3], [2, 1], [6, 5]]
    assert local.descriptors.tolist() == [[2, 5], [1, 4], [3, 6]]
    assert local.scores.tolist() == [0.75, 0.5, 0.5]
    assert local.scales.tolist() == [1, 1, 1]
    assert local.mask.tolist() == [True, True, True]
    assert {field.dtype for field in local[:4]} == {np.dtype(np.float32)}


def test_scales_are_read_and_scores_may_be_absent(path):
    put(path, "a", keypoints=KEYPOINTS, descriptors=DESCRIPTORS, scales=[1.0, 2.0, 4.0])
    local = read(path, "a")
    assert local.scales.tolist() == [1, 2, 4]
    assert local.scores.tolist() == [1, 1, 1]
    assert local.locations.tolist() == KEYPOINTS[:, ::-1].tolist()


def test_a_global_descriptor_is_read(path):
    put(path, "a", global_descriptor=[3.0, 4.0])
    assert read(path, "a", "global").tolist() == [3, 4]


def test_an_image_without_features(path):
    put(path, "a", keypoints=np.zeros((0, 2)), descriptors=np.zeros((8, 0)), scores=np.zeros(0))
    assert read(path, "a").descriptors.shape == (0, 8)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "a"),
        ("a.JPG", "a"),
        ("a", "a.png"),
        ("query/day/a.jpg", "query/day/a.jpg"),
        ("query/day/a.jpg", "day/a"),
        ("query/day/a.jpg", "a"),
        ("a.jpg", "images/a"),
    ],
)
def test_names_are_found(path, stored, wanted):
    whole(path, stored)
    put(path, "other/b.jpg", global_descriptor=[1.0])
    assert read(path, wanted).scores.tolist() == [0.75, 0.5, 0.5]


@pytest.mark.parametrize("wanted", ["b", "other/a", "day", "a.jpg/keypoints", "ay/a"])
def test_an_absent_name_is_told_from_a_damaged_one(path, wanted):
    whole(path, "day/a.jpg")
    with pytest.raises(AbsentImageError, match=rf"'{wanted}': .*features\.h5$"):
        read(path, wanted)


def test_a_file_name_that_two_images_have_is_not_guessed(path):
    whole(path, "day/a.jpg")
    whole(path, "night/a.jpg")
    with pytest.raises(AbsentImageError, match=r"day/a\.jpg .*night/a\.jpg"):
        read(path, "a")
    assert len(read(path, "night/a").mask) == 3


def test_an_image_may_be_called_as_the_folder_of_others(path):
    whole(path, "a/b")
    put(path, "a", global_descriptor=[1.0])
    assert read(path, "a", "global").tolist() == [1]
    assert len(read(path, "a/b").mask) == 3


@pytest.mark.parametrize(
    ("datasets", "names"),
    [
        ({"keypoints": KEYPOINTS}, "no descriptors"),
        ({"descriptors": DESCRIPTORS}, "no keypoints"),
        ({"keypoints": KEYPOINTS, "descriptors": DESCRIPTORS.T}, r"descriptors .*\[3, 2\]"),
        ({"keypoints": KEYPOINTS.T, "descriptors": DESCRIPTORS}, r"keypoints .*\[2, 3\]"),
        ({"keypoints": KEYPOINTS[0], "descriptors": DESCRIPTORS}, r"keypoints .*\[2\]"),
        (
            {"keypoints": KEYPOINTS, "descriptors": DESCRIPTORS, "scores": [1.0]},
            r"scores .*\[3\].*\[1\]",
        ),
        ({"keypoints": KEYPOINTS * np.nan, "descriptors": DESCRIPTORS}, "keypoints .*finite"),
        (
            {"keypoints": KEYPOINTS, "descriptors": np.full((2, 3), 1e300)},
            "descriptors .*finite",
        ),
        ({"keypoints": "words", "descriptors": DESCRIPTORS}, "keypoints .*numbers"),
    ],
)
def test_wrong_datasets_are_one_line_with_file_and_image(path, datasets, names):
    put(path, "day/a", **datasets)
    refused(path, "day/a", f"image day/a: .*{names}")


def test_a_missing_global_descriptor_names_file_and_image(path):
    whole(path, "a")
    refused(path, "a", "image a: .*no global_descriptor", "global")


@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"\x89HDF\r\n\x1a\n" + b"\xff" * 40, "truncated"]
)
def test_an_invalid_or_absent_hdf5_file_is_one_line(path, content):
    if content == "truncated":
        whole(path, "a")
        content = path.read_bytes()[:1500]
    if content is not None:
        path.write_bytes(content)
    refused(path, "a", "HDF5")


def test_damaged_data_name_the_image(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group.create_dataset("keypoints", data=KEYPOINTS)
        data = np.random.default_rng(0).random((64, 3))
        group.create_dataset("descriptors", data=data, compression="gzip")
        chunk = group["descriptors"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\0" * chunk.size
    path.write_bytes(content)
    refused(path, "a", "image a: ")


@pytest.mark.parametrize("field", ["descriptors", "global_descriptor"])
def test_a_bomb_is_refused_before_there_is_room_for_it(path, field):
    """A few bytes declare a terabyte, of which no chunk was ever written."""
    whole(path, "a")
    with h5py.File(path, "a") as file:
        file["a"].pop(field, None)
        shape = (5, 2**37) if field == "descriptors" else (2**38,)
        file["a"].create_dataset(field, shape, "float32", chunks=True, compression="gzip")
    part = "local" if field == "descriptors" else "global"
    refused(path, "a", rf"image a: {field} .*\d+ bytes.* {hloc._LARGEST}", part)


def test_other_files_are_not_read_through_this_one(path, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    with h5py.File(path, "w") as file:
        place = [(str(tmp_path / "secret"), 0, 64)]
        file.create_dataset("a/global_descriptor", (16,), "float32", external=place)
    refused(path, "a", "image a: global_descriptor .*this file", "global")


def features(rng, count, masked=()):
    return LocalFeatures(
        locations=rng.random((count, 2), np.float32),
        scales=rng.random(count, np.float32),
        scores=np.sort(rng.random(count, np.float32))[::-1],
        descriptors=rng.random((count, 5)).astype(np.float16),
        mask=~np.isin(np.arange(count), masked),
    )


def test_the_layout_is_that_of_hloc(path, rng):
    local = features(rng, 4, masked=(3,))
    with hloc.writing(path) as writer:
        writer.write("day/a.jpg", local, (640, 480))
        writer.write_global("day/a.jpg", np.ones(7, np.float32))
        writer.write("b", local)
    with h5py.File(path) as file:
        group = file["day"]["a.jpg"]
        fields = {"keypoints", "scores", "scales", "descriptors"}
        assert set(group) == fields | {"image_size", "global_descriptor"}
        assert set(file["b"]) == fields
        assert group["image_size"][()].tolist() == [640, 480]
        assert group["keypoints"][:, 0].tolist() == local.locations[:3, 1].tolist()
        assert group["descriptors"].shape == (5, 3)
        assert group["descriptors"].dtype == np.float16


@pytest.mark.parametrize("count", [0, 1, 9])
def test_written_features_are_read_back(path, rng, count):
    local = features(rng, count, masked=(7,))
    with hloc.writing(path) as writer:
        writer.write("a/b", local)
    for found, wanted in zip(read(path, "a/b"), local, strict=True):
        np.testing.assert_array_equal(found, wanted[local.mask])


def test_a_failed_write_leaves_the_file_of_before(path, rng):
    whole(path, "a")
    before = path.read_bytes()

    def fail():
        with hloc.writing(path) as writer:
            writer.write("b", features(rng, 2))
            raise KeyError("interrupted")

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_without_h5py_the_package_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it could not be imported
    with pytest.raises(UserError, match="package = 'h5py': .*pip install h5py"):
        read(path, "a")


def test_a_name_in_two_folders_is_that_of_the_store(tmp_path):
    with hloc.writing(tmp_path / "a.h5") as writer:
        for number, folder in enumerate(("database", "queries")):
            writer.write_global(f"{folder}/a.jpg", np.full(4, number, np.float32))
    for number, folder in enumerate(("database", "queries")):
        with hloc.reading(tmp_path / "a.h5", folder) as reader:
            assert reader.read_global("a.jpg").tolist() == [number] * 4
    with hloc.reading(tmp_path / "a.h5") as reader, pytest.raises(AbsentImageError, match="or"):
        reader.read_global("a.jpg")
