import jax.numpy as jnp
import numpy as np
import pytest

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
