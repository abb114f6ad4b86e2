import pathlib
import shutil

import pytest

from delg_jax.errors import UserError
from delg_jax.features import store_check
from delg_jax.features.store import FeatureStore
from tests.folders import contents
from tests.stores import features, fill

COUNTS = [3, 0, 5, 1, 4, 2, 5]  # features of each image
ARRAYS = (
    *("counts", "descriptor_scales", "descriptors", "global", "locations", "names_64"),
    *("reasons", "scales", "scores", "sizes", "state"),
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Chunks of several parts, as those of photographs are."""
    monkeypatch.setattr("delg_jax.features.store._PART_BYTES", 64)


@pytest.fixture
def rows(rng):
    rows = [features(rng, count) for count in COUNTS]
    rows[4] = "broken"
    return rows


@pytest.fixture
def store(tmp_path, rows):
    fill(tmp_path / "store", rows, local_encoding="int8")
    return FeatureStore(tmp_path / "store")


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def chunk(store, array, number):
    (path,) = (store.folder / array).glob(f"c.{number}*")
    return path


def damages(folder):
    return list(store_check.verify(FeatureStore(folder)))


def test_nothing_is_wrong_with_a_whole_store_and_all_is_read(store):
    read = []
    assert list(store_check.verify(store, read.append)) == []
    assert sum(read) == store_check.size(store) > 7 * 5 * 8
    assert tuple(name for name, _ in store.arrays()) == ARRAYS


def test_an_empty_store_is_whole(tmp_path):
    assert list(store_check.verify(fill(tmp_path, []))) == []


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("damage", ["flip", "cut", "absent"])
def test_each_damaged_file_is_named(store, array, damage):
    number = 0 if array.startswith("names") else 1
    path = chunk(store, array, number)
    if damage == "flip":
        flip(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:7])
    else:
        path.unlink()
    (found,) = damages(store.folder)
    assert (found.array, found.path) == (array, str(path))
    assert found.rows == (range(7) if array.startswith("names") else range(3, 6))
    assert "\n" not in found.reason


def test_all_damage_is_found_in_order(tmp_path, rows):
    store = fill(tmp_path, rows, chunk=1)
    for name, number in (("scores", 6), ("global", 0), ("scores", 2), ("global", 5)):
        flip(chunk(store, name, number))
    found = [(damage.array, damage.rows.start) for damage in damages(tmp_path)]
    assert found == [("global", 0), ("global", 5), ("scores", 2), ("scores", 6)]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("damage", ["empty", "cut", "absent", "folder"])
def test_a_damaged_description_is_one_line(store, array, damage):
    path = store.folder / array / "zarr.json"
    if damage == "absent":
        path.unlink()
    elif damage == "folder":
        shutil.rmtree(path.parent)
    else:
        path.write_text("{" if damage == "cut" else "")
    with pytest.raises(UserError, match=rf"{array}/zarr\.json'") as error:
        damages(store.folder)
    assert "\n" not in str(error.value)


def test_an_array_of_other_rows_is_refused(store):
    path = store.folder / "global" / "zarr.json"
    path.write_text(path.read_text().replace('"shape":[7,6]', '"shape":[6,6]'))
    with pytest.raises(UserError, match=r"global/zarr\.json.* 7 rows.* 6"):
        damages(store.folder)


@pytest.mark.parametrize(
    "broken",
    [
        [("global", 0)],
        [("state", 1)],
        [(name, 1) for name in ARRAYS if name != "names_64"],
        [("state", 2), ("scores", 2), ("scores", 0), ("reasons", 1)],
    ],
    ids=str,
)
def test_a_repaired_store_is_filled_to_the_same_bytes(store, rows, broken):
    before = contents(store.folder)
    for array, number in broken:
        flip(chunk(store, array, number))
    chunks = {number for _, number in broken}
    found = damages(store.folder)
    assert len(found) == len(broken)
    wanted = sum(len(range(7)[3 * number : 3 * number + 3]) for number in chunks)
    assert store_check.repair(FeatureStore(store.folder), found) == wanted
    with pytest.raises(UserError, match="resume"):
        FeatureStore(store.folder)
    fill(store.folder, rows, local_encoding="int8")
    assert contents(store.folder) == before
    assert damages(store.folder) == []


@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_interrupted_repair_is_repaired(store, rows, left, monkeypatch):
    before = contents(store.folder)
    for array in ("scores", "state", "global"):
        flip(chunk(store, array, 1))
    plain, calls = pathlib.Path.unlink, []

    def unlink(path, missing_ok=False):
        if path.name.startswith("c.") and path.parent.parent == store.folder:
            calls.append(path)
            if len(calls) > left:
                raise KeyboardInterrupt
        plain(path, missing_ok)

    found = damages(store.folder)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            store_check.repair(FeatureStore(store.folder), found)
    unfinished = FeatureStore(store.folder, whole=False)
    assert not unfinished.is_whole()
    found = list(store_check.verify(unfinished))
    assert len(found) == 3 - left
    store_check.repair(unfinished, found)
    fill(store.folder, rows, local_encoding="int8")
    assert contents(store.folder) == before


def test_names_cannot_be_repaired_and_nothing_is_touched(store):
    flip(chunk(store, "global", 0))
    flip(chunk(store, "names_64", 0))
    before = contents(store.folder)
    with pytest.raises(UserError, match=r"names_64/c\.0\.0.*--overwrite"):
        store_check.repair(store, damages(store.folder))
    assert contents(store.folder) == before


def test_where_nothing_has_features_no_array_of_them_is_asked_for(tmp_path):
    assert list(store_check.verify(fill(tmp_path, ["broken"] * 4))) == []


def test_deleted_images_stay_deleted_in_a_repair(store, rows):
    store.delete(["image0", "image4"])
    flip(chunk(store, "scores", 0))
    assert store_check.repair(store, damages(store.folder)) == 2
    opened = FeatureStore(store.folder, whole=False)
    assert opened.missing() == [range(1, 3)]
    assert opened.names == ["image1", "image2", "image3", "image5", "image6"]
