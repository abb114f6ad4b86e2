import h5py
import numpy as np
import pytest
from hypothesis import strategies as st

from delg_jax.errors import UserError
from delg_jax.features.formats import delf, hloc
from delg_jax.features.formats.imported import ImportedFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import damaged
from tests.stores import features

_LARGEST = 1e38


@pytest.fixture(scope="module")
def local():
    return features(np.random.default_rng(1), 3).local


@pytest.fixture(scope="module")
def protos(tmp_path_factory, local):
    folder = tmp_path_factory.mktemp("protos")
    delf.write_local(folder / "a.delg_local", local)
    delf.write_global(folder / "a.delg_global", local.descriptors[0])
    return tuple((folder / f"a.delg_{kind}").read_bytes() for kind in ("local", "global"))


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory, local):
    path = tmp_path_factory.mktemp("hdf5") / "a.h5"
    with hloc.writing(path) as writer:
        writer.write("db/a.jpg", local, (30, 20))
        writer.write_global("db/a.jpg", local.descriptors[0])
    return path.read_bytes()


def _require_local(found):
    count = len(found.mask)
    assert found.locations.shape == (count, 2)
    assert found.scales.shape == found.scores.shape == (count,)
    assert found.descriptors.shape[0] == count
    assert all(np.isfinite(np.asarray(field)).all() for field in found[:4])
    assert (np.diff(found.scores) <= 0).all()


@cases(500)
def test_damaged_protocol_buffers_are_features_or_refused(protos, tmp_path, examples):
    path = tmp_path / "a.delg"

    def check(data):
        path.write_bytes(data)
        found = outcome(lambda: delf.read_local(path))
        if isinstance(found, LocalFeatures):
            order = np.argsort(-found.scores, kind="stable")
            _require_local(LocalFeatures(*(field[order] for field in found)))
        pooled = outcome(lambda: delf.read_global(path))
        if not isinstance(pooled, UserError):
            assert pooled.ndim == 1
            assert np.isfinite(pooled).all()

    hold(examples, check, damaged(protos))


@cases(250)
def test_damaged_hdf5_is_features_or_refused(hdf5, tmp_path, examples):
    path = tmp_path / "a.h5"

    def read(kind):
        with hloc.reading(path) as reader:
            return getattr(reader, kind)("a.jpg")

    def check(data):
        path.write_bytes(data)
        found = outcome(lambda: read("read_local"))
        if not isinstance(found, UserError):
            _require_local(found)
        pooled = outcome(lambda: read("read_global"))
        if not isinstance(pooled, UserError):
            assert np.isfinite(pooled).all()

    hold(examples, check, damaged((hdf5,)))


_ARRAYS = st.sampled_from(("float64", "float32", "float16", "int8", "S3", "bool")).flatmap(
    lambda dtype: st.lists(st.integers(0, 4), max_size=3).map(lambda shape: (dtype, shape))
)


@cases(150)
def test_hdf5_of_other_arrays_is_imported_whole_or_refused(tmp_path, examples):
    fields = {"keypoints": (3, 2), "descriptors": (4, 3), "scores": (3,), "scales": (3,)}
    numbers = st.sampled_from((0.0, 1.0, -1.0, 1e300, 1e-40, 3e38, float("nan"), float("inf")))

    def check(case):
        field, (dtype, shape), number, length = case
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            for name, whole in fields.items():
                file[f"a.jpg/{name}"] = np.ones(whole, np.float32)
            del file[f"a.jpg/{field}"]
            with np.errstate(all="ignore"):
                file[f"a.jpg/{field}"] = np.full(shape, number).astype(dtype)
            file["a.jpg/global_descriptor"] = np.full(length, number)
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        store = FeatureStore.prepare(folder, ["a"], Layout(1, max_features=4))
        files = str(path), str(path), Layout(local_encoding="float16"), {"database": ["a"]}
        found = outcome(lambda: ImportedFeatures(*files).import_to_store("database", store, 0))
        if isinstance(found, UserError):
            assert "a.h5" in str(found)
            return
        held = store.local_features(0)
        assert all(np.isfinite(np.asarray(part)).all() for part in held[:4])
        norms = np.linalg.norm(np.asarray(held.descriptors, np.float64), axis=-1)
        assert (np.isclose(norms, 1, atol=1e-3) | (norms == 0)).all()
        assert np.isfinite(store.global_descriptors()).all()

    names = st.sampled_from(sorted(fields))
    hold(examples, check, st.tuples(names, _ARRAYS, numbers, st.integers(0, 5)))
