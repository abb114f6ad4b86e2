import json
import shutil

import numpy as np
import pytest

from delg_jax import workdir
from delg_jax.errors import UserError
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from tests.folders import contents
from tests.stores import features, fill, names


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Chunks of several parts, as those of photographs are."""
    monkeypatch.setattr("delg_jax.features.store._PART_BYTES", 64)


@pytest.fixture
def rows(rng):
    return [features(rng, count) for count in (3, 0, 5, 1, 4, 2, 5)]


def test_the_digest_is_of_names_and_content(tmp_path, rng, rows):
    found = {fill(tmp_path / "first", rows).digest()}
    assert fill(tmp_path / "again", rows).digest() in found
    one_less, other = rows[:6], [*rows[:6], features(rng, 5)]
    fewer = [*rows[:6], features(rng, 4)]
    for number, changed in enumerate((one_less, other, fewer, [*rows[:6], "broken"])):
        found.add(fill(tmp_path / str(number), changed).digest())
    reverse = FeatureStore.prepare(tmp_path / "reverse", names(7)[::-1], Layout(3, max_features=5))
    for run in reverse.missing():
        reverse.write(run, [rows[i] for i in run], np.full((len(run), 2), run.start))
    reverse.finish()
    found.add(reverse.digest())
    assert len(found) == 6
    assert all(len(digest) == 32 for digest in found)


def test_the_digest_is_read_not_computed(tmp_path, rows, monkeypatch):
    wanted = fill(tmp_path, rows).digest()
    monkeypatch.setattr("delg_jax.features.store.index.digest", None)
    assert FeatureStore(tmp_path).digest() == wanted


def test_a_copy_has_the_digest_of_the_original(tmp_path, rows):
    wanted = fill(tmp_path / "a", rows).digest()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert FeatureStore(tmp_path / "b").digest() == wanted


def test_images_added_to_a_store_change_its_digest_to_that_of_a_new_one(tmp_path, rows):
    before = fill(tmp_path / "grown", rows[:4]).digest()
    grown = FeatureStore.prepare(tmp_path / "grown", names(7), Layout(3, max_features=5))
    with pytest.raises(UserError, match="whole"):
        grown.digest()
    grown.write(range(4, 6), rows[4:6], np.full((2, 2), 3))
    grown.write(range(6, 7), rows[6:], np.full((1, 2), 6))
    sizes = np.array([[0, 0]] * 3 + [[3, 3]] * 3 + [[6, 6]])
    grown._array("sizes").write(slice(0, 7), sizes.astype(np.int32))
    grown.finish()
    assert grown.digest() == fill(tmp_path / "new", rows).digest() != before


def test_images_deleted_from_a_store_change_its_digest(tmp_path, rows, monkeypatch):
    store = fill(tmp_path, rows)
    found = [store.digest()]
    store.delete(["image1"])
    found.append(store.digest())
    store.delete(["image4"])
    found.append(store.digest())
    assert len(set(found)) == 3
    assert FeatureStore(tmp_path).digest() == found[-1]
    monkeypatch.setattr(FeatureStore, "_set_states", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # cut short
        store.delete(["image2"])
    monkeypatch.undo()
    FeatureStore(tmp_path).delete(["image2"])
    assert FeatureStore(tmp_path).digest() not in found


def test_a_store_without_a_digest_computes_it(tmp_path, rows):
    wanted = fill(tmp_path, rows).digest()
    index = json.loads((tmp_path / "store.json").read_text())
    assert index.pop("digest") == wanted
    workdir.write_json(tmp_path / "store.json", index)
    before = contents(tmp_path)
    assert FeatureStore(tmp_path).digest() == wanted
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["absent", "empty"])
def test_a_store_that_lacks_a_chunk_has_no_digest(tmp_path, rows, damage):
    fill(tmp_path, rows)
    index = json.loads((tmp_path / "store.json").read_text())
    workdir.write_json(tmp_path / "store.json", {**index, "digest": ""})
    path = tmp_path / "scores" / "c.1.0"
    path.unlink()
    if damage == "empty":
        path.touch()
    with pytest.raises(UserError, match=r"scores/c\.1\.0.* --repair"):
        FeatureStore(tmp_path).digest()
