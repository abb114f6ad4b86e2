import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.search.kernels import SimilarityKernel

COSINES = jnp.array([-1.0, -0.5, 0.0, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (SimilarityKernel("identity"), [-1, -0.5, 0, 0.5, 0.75, 1]),
        (SimilarityKernel("threshold", threshold=0.5), [0, 0, 0, 0, 0.75, 1]),
        (SimilarityKernel("threshold", threshold=-0.75), [0, -0.5, 0, 0.5, 0.75, 1]),
        (SimilarityKernel("power", threshold=0.0, power=2.0), [0, 0, 0, 0.25, 0.5625, 1]),
        (SimilarityKernel("power", threshold=-0.75, power=2), [0, -0.25, 0, 0.25, 0.5625, 1]),
    ],
)
def test_by_hand(kernel, expected):
    np.testing.assert_allclose(kernel(COSINES), expected, atol=1e-6)


def test_equal_kernels_share_a_compiled_function():
    assert hash(SimilarityKernel("power", 0.2, 3.0)) == hash(SimilarityKernel("power", 0.2, 3.0))
    assert SimilarityKernel("power", 0.2, 3.0) != SimilarityKernel("power", 0.3, 3.0)


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'cann'.*identity, threshold, power"):
        SimilarityKernel("cann")
