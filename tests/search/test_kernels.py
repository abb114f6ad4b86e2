import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import kernels
from delg_jax.search.kernels import CANN_CURVE, SimilarityKernel, cann_vote

COSINES = jnp.array([-1.0, -0.5, 0.0, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (SimilarityKernel("identity"), [-1, -0.5, 0, 0.5, 0.75, 1]),
        (SimilarityKernel("threshold", threshold=0.5), [0, 0, 0, 0, 0.75, 1]),
        (SimilarityKernel("threshold", threshold=-0.75), [0, -0.5, 0, 0.5, 0.75, 1]),
        (SimilarityKernel("power", threshold=0.0, power=2.0), [0, 0, 0, 0.25, 0.5625, 1]),
        (SimilarityKernel("power", threshold=-0.75, power=2), [0, -0.25, 0, 0.25, 0.5625, 1]),
        # Distances 2, 3^(1/2), 2^(1/2), 1, 2^(-1/2), 0 of reach 2; with p1 = 1/2, 1 - r / 2
        (
            SimilarityKernel("cann", reach=2.0, curve=0.5),
            [0, 0.133975, 0.292893, 0.5, 0.646447, 1],
        ),
        (SimilarityKernel("cann", reach=1.0, curve=2 / 3), [0, 0, 0, 0, 0.5**0.5, 1]),
    ],
)
def test_by_hand(kernel, expected):
    np.testing.assert_allclose(kernel(COSINES), expected, atol=1e-6)


def test_equal_kernels_share_a_compiled_function():
    assert hash(SimilarityKernel("power", 0.2, 3.0)) == hash(SimilarityKernel("power", 0.2, 3.0))
    assert SimilarityKernel("power", 0.2, 3.0) != SimilarityKernel("power", 0.3, 3.0)


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'cosine'.*identity, threshold, power, cann"):
        SimilarityKernel("cosine")


@pytest.mark.parametrize("wrong", [{"reach": 0.0}, {"curve": 0.0}, {"curve": 1.0}])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        SimilarityKernel("cann", **wrong)


def test_votes_of_cann_are_those_of_the_original_defaults():
    distances = jnp.array([0.0, 28.283, 117.3, 120.0, 300.0])
    found = cann_vote(distances, 120.0, CANN_CURVE)
    np.testing.assert_allclose(found, [1, 0.665, 0.0090, 0, 0], atol=5e-4)


@pytest.mark.parametrize(
    ("kernel", "least"),
    [
        (SimilarityKernel("identity", threshold=0.5), -np.inf),
        (SimilarityKernel("threshold", threshold=0.5), 0.5),
        (SimilarityKernel("power", threshold=-0.5), -0.5),
        (SimilarityKernel("cann", threshold=0.9, reach=1.0), 0.5),
    ],
)
def test_there_are_no_votes_up_to_the_least_cosine(kernel, least):
    assert kernel.least == least
    if np.isfinite(least):
        assert kernel(jnp.array([-1.0, least])).tolist() == [0, 0]
        assert kernel(jnp.array([least + 0.01])) != 0


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
    assert kernels.mean_cosine(database) == pytest.approx((present @ present.T).mean())


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
    assert kernels.mean_cosine(stored) == pytest.approx(shared, abs=0.05)
    assert set(read) == {100}


@pytest.mark.parametrize("images", [0, 1])
def test_no_features_share_nothing(rng, images):
    nothing = features(rng, 0.5)
    nothing = nothing._replace(descriptors=nothing.descriptors[-1:], mask=nothing.mask[-1:])
    nothing = nothing._replace(descriptors=nothing.descriptors[:images], mask=nothing.mask[:images])
    assert kernels.mean_cosine(nothing) == 0


def logged(caplog):
    return [r.getMessage() for r in caplog.records if r.name == kernels.__name__]


def test_a_kernel_that_hardly_selects_is_reported_with_a_remedy(rng, caplog):
    kernels.warn_if_unselective(features(rng, 0.5), KERNEL)
    (line,) = logged(caplog)
    assert "threshold = 0.6" in line
    assert "config.extract.pca_dim" in line


def test_nothing_is_said_where_nothing_is_wrong(rng, caplog):
    kernels.warn_if_unselective(features(rng, 0.1), KERNEL)
    crowded = features(rng, 0.5)
    kernels.warn_if_unselective(crowded, SimilarityKernel("power", power=3.0))
    codes = crowded._replace(descriptors=(127 * crowded.descriptors.clip(-1, 1)).astype(np.int8))
    kernels.warn_if_unselective(codes, KERNEL)
    assert logged(caplog) == []
