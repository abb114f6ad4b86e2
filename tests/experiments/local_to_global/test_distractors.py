import numpy as np
import pytest

from delg_jax.features import FeatureStore
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from experiments.local_to_global import distractors
from tests import stores

_LAYOUT = Layout(3, "float16", "float16", 9)


def _image(rng, count, dim=16):
    descriptors = rng.normal(size=(count, dim)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    pooled = rng.normal(size=6).astype(np.float32)
    local = LocalFeatures(
        rng.random((count, 2), np.float32),
        rng.random(count, np.float32),
        np.sort(rng.random(count, np.float32))[::-1],
        descriptors,
        np.ones(count, bool),
    )
    return Features(pooled / np.linalg.norm(pooled), local)


@pytest.fixture
def photographs(rng):
    return [_image(rng, count) for count in (9, 4, 0, 7, 9, 1)]


def test_a_distractor_lies_between_two_photographs(photographs):
    seen = set()
    every = np.concatenate([image.local.descriptors for image in photographs])
    pooled = np.stack([image.global_descriptor for image in photographs])
    for number in range(20):
        made = distractors.distractor(photographs, number)
        features = made.local.descriptors
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(made.global_descriptor), 1.0, atol=1e-5)
        # It is nearest to the two photographs, and no copy of one
        near = np.sort(pooled @ made.global_descriptor)
        assert 0.2 < near[-1] < 0.99999
        assert ((features @ every.T).max(axis=1) > 0.4).all()
        assert made.local.mask.all()
        assert (np.diff(made.local.scores) <= 0).all()
        again = distractors.distractor(photographs, number)
        np.testing.assert_array_equal(made.local.descriptors, again.local.descriptors)
        seen.add(made.global_descriptor.tobytes())
    assert len(seen) == 20


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_a_database_begins_with_the_real_images(rng, photographs, tmp_path, encoding):
    real = stores.fill(tmp_path / "real", [stores.features(rng, n, 5, 16) for n in (5, 3, 0, 2)])
    layout = _LAYOUT._replace(local_encoding=encoding)
    made = distractors.write_database(real, photographs, 11, layout, tmp_path / "made")
    assert (len(made), made.names[:4]) == (11, real.names)
    own, written = distractors.read_images(real, 9), distractors.read_images(made, 9)
    for number in range(11):
        expected = own(number) if number < 4 else distractors.distractor(photographs, number)
        found = written(number)
        np.testing.assert_allclose(
            found.global_descriptor, expected.global_descriptor, rtol=1e-3, atol=1e-4
        )
        np.testing.assert_array_equal(found.local.locations, expected.local.locations)
        np.testing.assert_allclose(found.local.descriptors, expected.local.descriptors, atol=0.01)


def test_a_killed_run_resumes_and_a_larger_database_begins_with_a_smaller(
    rng, photographs, tmp_path, monkeypatch
):
    real = stores.fill(tmp_path / "real", [stores.features(rng, 4, 5, 16) for _ in range(4)])
    small = distractors.write_database(real, photographs, 8, _LAYOUT, tmp_path / "made").digest()
    made, write = distractors.distractor, FeatureStore.write

    def dies(store, run, *values):
        if run.start >= 9:
            raise KeyboardInterrupt
        write(store, run, *values)

    monkeypatch.setattr(FeatureStore, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        distractors.write_database(real, photographs, 14, _LAYOUT, tmp_path / "made")
    monkeypatch.setattr(FeatureStore, "write", write)
    again = []
    monkeypatch.setattr(distractors, "distractor", lambda *a: again.append(a[1]) or made(*a))
    whole = distractors.write_database(real, photographs, 14, _LAYOUT, tmp_path / "made")
    assert again == [9, 10, 11, 12, 13]
    at_once = distractors.write_database(real, photographs, 14, _LAYOUT, tmp_path / "at_once")
    assert whole.digest() == at_once.digest() != small


def test_the_first_images_are_as_in_a_store_of_them(rng, photographs, tmp_path):
    real = stores.fill(tmp_path / "real", [stores.features(rng, 4, 5, 16) for _ in range(4)])
    whole = distractors.write_database(real, photographs, 11, _LAYOUT, tmp_path / "made")
    few = distractors.write_database(real, photographs, 7, _LAYOUT, tmp_path / "few")
    for megabytes in (0, 100):
        first = distractors.FirstImages(whole, 7, megabytes)
        assert len(first) == 7
        assert first.names == few.names
        np.testing.assert_array_equal(first.present("local"), few.present("local"))
        np.testing.assert_array_equal(first.global_descriptors(), few.global_descriptors())
        for one, other in zip(first.local_features(9), few.local_features(9), strict=True):
            np.testing.assert_array_equal(one, other)
