import numpy as np
import pytest

from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import mean_direction
from delg_jax.search.kernels import SimilarityKernel

KERNEL = SimilarityKernel("threshold", threshold=0.6)


def features(rng, shared, images=30, count=20, dim=64):
    """Unit vectors of which two have a cosine of about `shared`; the last row has no features."""
    descriptors = rng.normal(size=(images, count, dim)) * (1 - shared) ** 0.5 / dim**0.5
    descriptors[..., 0] += shared**0.5
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    mask = rng.random((images, count)) < 0.8
    mask[-1] = False
    descriptors[~mask] = 9.0
    return LocalFeatures(None, None, None, descriptors.astype(np.float32), mask)


def test_the_mean_cosine_is_that_of_all_pairs(rng):
    database = features(rng, 0.3)
    present = database.descriptors[database.mask].astype(np.float64)
    assert mean_direction.mean_cosine(database) == pytest.approx((present @ present.T).mean())


@pytest.mark.parametrize("shared", [0.0, 0.2, 0.5])
def test_some_images_stand_for_all_on_disk(rng, shared):
    whole = features(rng, shared, images=400)
    read = []

    def rows(array):
        def of(wanted):
            read.append(len(wanted))
            return array[wanted]

        return StoredRows(of, array.shape, array.dtype)

    stored = whole._replace(descriptors=rows(whole.descriptors), mask=rows(whole.mask))
    assert mean_direction.mean_cosine(stored) == pytest.approx(shared, abs=0.05)
    assert set(read) == {100}


@pytest.mark.parametrize("images", [0, 1])
def test_no_features_share_nothing(rng, images):
    nothing = features(rng, 0.5)
    nothing = nothing._replace(descriptors=nothing.descriptors[-1:], mask=nothing.mask[-1:])
    nothing = nothing._replace(descriptors=nothing.descriptors[:images], mask=nothing.mask[:images])
    assert mean_direction.mean_cosine(nothing) == 0


def logged(caplog):
    return [r.getMessage() for r in caplog.records if r.name == mean_direction.__name__]


def test_a_kernel_that_hardly_selects_is_reported_with_a_remedy(rng, caplog):
    mean_direction.warn(features(rng, 0.5), KERNEL)
    (line,) = logged(caplog)
    assert "threshold = 0.6 hardly selects" in line
    assert "config.extract.pca_dim" in line


def test_nothing_is_said_where_nothing_is_wrong(rng, caplog):
    mean_direction.warn(features(rng, 0.1), KERNEL)
    crowded = features(rng, 0.5)
    mean_direction.warn(crowded, SimilarityKernel("power", power=3.0))
    codes = crowded._replace(descriptors=(127 * crowded.descriptors.clip(-1, 1)).astype(np.int8))
    mean_direction.warn(codes, KERNEL)
    assert logged(caplog) == []
