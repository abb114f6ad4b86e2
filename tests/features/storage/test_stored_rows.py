import numpy as np
import pytest

from delg_jax.features.storage.stored_rows import StoredRows


@pytest.fixture
def values(rng):
    return rng.normal(size=(7, 3, 2)).astype(np.float32)


@pytest.fixture
def asked():
    """What was read, in order."""
    return []


@pytest.fixture
def stored(values, asked):
    def read(wanted):
        assert isinstance(wanted, slice) or wanted.min(initial=0) >= 0
        asked.append(wanted)
        return values[wanted]

    return StoredRows(read, values.shape, values.dtype)


def test_it_looks_like_an_array(stored, values, asked):
    assert (stored.shape, stored.dtype, stored.ndim) == (values.shape, values.dtype, 3)
    assert (len(stored), stored.nbytes, stored.row_bytes) == (7, values.nbytes, 24)
    assert asked == []  # nothing of which needs the disk


@pytest.mark.parametrize(
    "key",
    [
        *(0, 6, -1, -7, np.int64(3)),
        *(slice(None), slice(2, 5), slice(-3, None), slice(5, 2), slice(0, 99), slice(7, 7)),
        *(slice(None, None, 2), slice(6, 1, -2), slice(None, None, -1)),
        *([4, 4, 0], [[0, -1], [3, 2]], np.zeros((0,), int), np.zeros((2, 0), int)),
        np.array([True, False, True, False, False, False, True]),
        *(np.zeros(7, bool), np.array([1, -2], np.int32)),
    ],
    ids=str,
)
def test_rows_are_those_of_numpy(stored, values, key):
    wanted = values[np.array(key) if isinstance(key, list) else key]
    found = stored[np.array(key) if isinstance(key, list) else key]
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)


def test_plain_slices_are_read_in_one_piece(stored, asked):
    _ = stored[2:5], stored[5:2]
    assert asked == [slice(2, 5), slice(5, 5)]


def test_numpy_takes_the_whole(stored, values):
    np.testing.assert_array_equal(np.asarray(stored), values)
    assert np.asarray(stored, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="the rows are on disk"):
        np.array(stored, copy=False)


@pytest.mark.parametrize("block", [0, 24, 71, 72, 1e9])
def test_any_block_gives_the_whole(stored, values, asked, block):
    np.testing.assert_array_equal(stored.in_memory(block), values)
    largest = max(part.stop - part.start for part in asked)
    assert largest == min(max(1, block // 24), 7)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_rows_without_values(shape):
    stored = StoredRows(lambda wanted: np.zeros(shape, np.int8)[wanted], shape, "int8")
    assert stored.nbytes == 0
    assert stored.in_memory(10).shape == shape
    assert stored[np.zeros(0, int)].shape == (0, *shape[1:])
