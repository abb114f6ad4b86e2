import numpy as np
import pytest

from delg_jax.search.blocks import padded_rows, starts


def test_last_block_is_filled_with_zeros():
    rows = padded_rows(np.arange(1, 6, dtype=np.float16).reshape(5, 1), 4, 3)
    np.testing.assert_array_equal(rows, np.array([[5], [0], [0]], np.float16))
    assert rows.dtype == np.float16


def test_blocks_put_together_are_the_array(rng):
    array = rng.random((7, 2, 3))
    blocks = [padded_rows(array, start, 3) for start in starts(7, 3)]
    assert {block.shape for block in blocks} == {(3, 2, 3)}
    np.testing.assert_array_equal(np.concatenate(blocks)[:7], array)


def test_masks_are_filled_with_false():
    assert padded_rows(np.ones((2, 2), bool), 1, 2).tolist() == [[True, True], [False, False]]


def test_nothing_has_no_blocks():
    assert list(starts(0, 4)) == []


def test_block_of_no_rows_is_refused():
    with pytest.raises(ValueError, match=r"`block` \(=0\) must be positive"):
        list(starts(3, 0))
