import shutil

import numpy as np
import pytest
from hypothesis import strategies as st

from delg_jax.errors import UserError
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_check import verify
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import changed_json, damaged
from tests.stores import features, fill


@pytest.fixture(scope="module", params=["float32", "int8", "sign"])
def whole(request, tmp_path_factory):
    rng = np.random.default_rng(2)
    rows = [features(rng, count) for count in (3, 0, 5, 2)] + ["no picture"]
    folder = tmp_path_factory.mktemp("stores") / request.param
    fill(folder, rows, chunk=2, local_encoding=request.param)
    return folder, _read(folder)


def _read(folder):
    store = FeatureStore(folder)
    local = store.local_features(0)
    parts = [store.global_descriptors(), *map(np.asarray, local), store.sizes()]
    return store.names, store.skipped(), parts


def _copy(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(whole[0], folder)


def _require_same(whole, found):
    """Damage is found, or changed nothing: no number may differ in silence."""
    if isinstance(found, UserError):
        assert "feature store" in found.subject
        return
    names, skipped, arrays = whole[1]
    count = len(found[0])
    assert found[0] == names[:count]
    assert found[1] == {name: why for name, why in skipped.items() if name in found[0]}
    for mine, theirs in zip(found[2], arrays, strict=True):
        # fewer images may have fewer features
        same = theirs[:count] if mine.ndim < 2 else theirs[:count, : mine.shape[1]]
        np.testing.assert_array_equal(mine, same)


@cases(120)
def test_a_damaged_chunk_never_gives_other_numbers(whole, tmp_path, examples):
    chunks = sorted(p.relative_to(whole[0]) for p in whole[0].rglob("c.*"))

    def check(case):
        place, change = case
        folder = _copy(whole, tmp_path)
        path = folder / chunks[place % len(chunks)]
        path.write_bytes(change.draw(damaged((path.read_bytes(),))))
        _require_same(whole, outcome(lambda: _read(folder)))
        reports = outcome(lambda: list(verify(FeatureStore(folder))))
        assert isinstance(reports, UserError) or len(reports) <= 1

    hold(examples, check, st.tuples(st.integers(0, 99), st.data()))


@cases(150)
def test_a_changed_description_never_gives_other_numbers(whole, tmp_path, examples):
    """Of the arrays, and of the store: other images, widths, encodings and types."""
    files = sorted(p.relative_to(whole[0]) for p in whole[0].rglob("*.json"))

    def check(case):
        name, change = case
        folder = _copy(whole, tmp_path)
        path = folder / name
        path.write_text(change.draw(changed_json(path.read_text())))
        _require_same(whole, outcome(lambda: _read(folder)))

    hold(examples, check, st.tuples(st.sampled_from(files), st.data()))


@cases(60)
def test_damaged_json_is_refused(whole, tmp_path, examples):
    files = ("store.json", "descriptors/zarr.json", "state/zarr.json", "sizes/zarr.json")

    def check(case):
        name, change = case
        folder = _copy(whole, tmp_path)
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(change.draw(damaged((before,))))
        outcome(lambda: _read(folder))

    hold(examples, check, st.tuples(st.sampled_from(files), st.data()))


@cases(100)
def test_any_names_come_back_or_are_refused(tmp_path, examples):
    def check(texts):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        store = outcome(lambda: FeatureStore.prepare(folder, texts, Layout()))
        if not isinstance(store, UserError):
            assert FeatureStore(folder, whole=False).names == texts

    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=70)
    hold(examples, check, st.lists(text, max_size=5, unique=True))
