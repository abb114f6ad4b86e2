import numpy as np
import pytest

from delg_jax.search.index_checks import require_counts, require_images, require_offsets


def test_consistent_arrays_pass():
    require_counts(dimension=5, count=0)
    require_offsets(np.array([0, 2, 2, 5]), 3, 5)
    require_offsets(np.array([0]), 0, 0)
    require_images(np.array([0, 4], np.int32), 5)
    require_images(np.zeros(0, np.int32), 0)


@pytest.mark.parametrize("value", [-1, 2**31, 1.0, True, None, "3"])
def test_wrong_counts_are_refused(value):
    with pytest.raises(ValueError, match="count"):
        require_counts(count=value)


@pytest.mark.parametrize(
    "offsets", [[0, 3, 2, 5], [1, 2, 3, 5], [0, 2, 3, 6], [0, 5], [[0, 1, 2, 5]], [0.0, 1, 2, 5]]
)
def test_offsets_that_do_not_divide_the_entries_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets"):
        require_offsets(np.array(offsets), 3, 5)


@pytest.mark.parametrize("images", [[0, 5], [-1, 2], [0.0], [[0]]])
def test_image_numbers_out_of_range_are_refused(images):
    with pytest.raises(ValueError, match="image"):
        require_images(np.array(images), 5)
