import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.encodings import ENCODINGS
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore


@pytest.fixture
def images(rng):
    return [
        Features(
            rng.normal(size=6).astype(np.float32),
            LocalFeatures(
                *(rng.random(shape, np.float32) for shape in ((5, 2), (5,), (5,), (5, 8))),
                mask=np.arange(5) < count,
            ),
        )
        for count in (5, 3)
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("count", [0, 2])
def test_reads_as_a_store_does(tmp_path, images, encoding, count):
    layout = Layout(2, local_encoding=encoding, max_features=5)
    store = FeatureStore.prepare(tmp_path, ["a", "b"], layout)
    store.write(range(2), images)
    memory = InMemoryFeatures(images, encoding)
    assert len(memory) == len(store)
    np.testing.assert_array_equal(memory.global_descriptors(), store.global_descriptors())
    found, expected = memory.local_features(count), store.local_features(count)
    np.testing.assert_array_equal(found.mask, expected.mask)
    for one, other in zip(found[:4], expected[:4], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one[found.mask], other[expected.mask])


def test_local_features_need_a_local_head(images):
    memory = InMemoryFeatures([image._replace(local=None) for image in images])
    with pytest.raises(UserError, match=r"config\.model\.local_head = False"):
        memory.local_features(0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_codes_are_those_of_a_store(tmp_path, images, encoding):
    layout = Layout(2, local_encoding=encoding, max_features=5)
    store = FeatureStore.prepare(tmp_path, ["a", "b"], layout)
    store.write(range(2), images)
    found = InMemoryFeatures(images, encoding).local_features(0, packed=True)
    expected = store.local_features(0, packed=True)
    assert found.descriptors.dtype == expected.descriptors.dtype
    mask = expected.mask
    np.testing.assert_array_equal(found.descriptors[mask], expected.descriptors[mask])


def test_images_without_features_are_absent_as_in_a_store(tmp_path, images):
    empty = images[0]._replace(global_descriptor=np.zeros(6, np.float32))
    bare = images[1].local._replace(mask=np.zeros(5, bool))
    images = [images[0], empty, images[1]._replace(local=bare)]
    store = FeatureStore.prepare(tmp_path, ["a", "b", "c", "d"], Layout(4, max_features=5))
    store.write(range(4), [*images, "broken"])
    for kind, expected in (("global", [1, 0, 1]), ("local", [1, 1, 0])):
        assert InMemoryFeatures(images).present(kind).tolist() == expected
        assert store.present(kind).tolist() == [*expected, 0]
