from typing import ClassVar

import numpy as np
import pytest

from delg_jax.search.batching import even_blocks, padded_rows, read_ahead, starts


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
    with pytest.raises(ValueError, match=r"`block` \(=0\)"):
        list(starts(3, 0))


@pytest.mark.parametrize("count", [0, 1, 4, 7, 9, 100])
def test_even_blocks_hold_every_row_and_reach_no_further(count):
    size, firsts = even_blocks(count, 4)
    assert size <= 4
    held = {row for first in firsts for row in range(first, first + size)}
    assert held == set(range(count))
    assert len(firsts) == -(-count // 4)
    assert firsts == sorted(set(firsts))


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_read_ahead_gives_every_row_once(count):
    rows, flags = np.arange(2 * count).reshape(count, 2), np.ones(count, bool)
    found = list(read_ahead((rows, flags), 4))
    assert [start for start, _ in found] == list(range(0, count, 4))
    for start, (block, present) in found:
        assert block.shape == (4, 2)
        np.testing.assert_array_equal(block[present], rows[start : start + 4])
        assert present.sum() == min(4, count - start)


def test_read_ahead_reads_no_more_than_one_block_ahead():
    class Rows(np.ndarray):
        read: ClassVar[list] = []

        def __getitem__(self, key):
            self.read.append(key.start)
            return np.asarray(super().__getitem__(key))

    for start, _ in read_ahead((np.zeros((12, 1)).view(Rows),), 4):
        assert max(Rows.read) <= start + 4
    assert sorted(Rows.read) == [0, 4, 8]


def test_a_read_error_is_raised():
    class Broken:
        def __len__(self):
            return 8

        def __getitem__(self, key):
            raise OSError(f"row {key.start}")

    with pytest.raises(OSError, match="row 0"):
        list(read_ahead((Broken(),), 4))
