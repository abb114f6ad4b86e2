import numpy as np
import pytest

from delg_jax.features.local_features import LocalFeatures, strongest


@pytest.fixture
def batch(rng):
    return LocalFeatures(
        locations=rng.random((3, 5, 2)),
        scales=rng.random((3, 5)),
        scores=rng.random((3, 5)),
        descriptors=rng.random((3, 5, 4)),
        mask=rng.random((3, 5)) < 0.5,
    )


@pytest.mark.parametrize("count", [1, 4])
def test_strongest_keeps_the_first(batch, count):
    for kept, field in zip(strongest(batch, count), batch, strict=True):
        np.testing.assert_array_equal(kept, field[:, :count])
    one = LocalFeatures(*(field[0] for field in batch))
    for kept, field in zip(strongest(one, count), one, strict=True):
        np.testing.assert_array_equal(kept, field[:count])


@pytest.mark.parametrize("count", [0, 5, 9])
def test_strongest_keeps_all_where_there_are_no_more(batch, count):
    assert strongest(batch, count) is batch
