import numpy as np
import pytest

from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import rows
from delg_jax.features.storage.rows import GLOBAL, LOCAL, SKIPPED, WRITTEN, Layout, StoredRows

NO_POOLED = np.zeros(0, np.float32)


def local(mask, dim=8):
    """Features of which each number tells its place; rubbish stands where the mask is False."""
    places = np.arange(len(mask), dtype=np.float32)
    return LocalFeatures(
        locations=np.stack([places, 10 + places], axis=1),
        scales=20 + places,
        scores=30 + places,
        descriptors=np.repeat(places[:, None], dim, axis=1),
        mask=np.array(mask, bool),
    )


@pytest.mark.parametrize(
    ("texts", "width"),
    [
        (["a", "", "bc"], 4),
        (["full"], 4),
        (["ä", "日本", "🦆"], 8),
        ([], 5),
        (["with space", "comma,", 'quote"', "a\nb"], 16),
    ],
)
def test_texts_come_back(texts, width):
    packed = rows.pack_texts(texts, width)
    assert packed.shape == (len(texts), width)
    assert packed.dtype == np.uint8
    assert rows.unpack_texts(packed) == texts


def test_texts_by_hand():
    assert rows.pack_texts(["ab", "ü"], 3).tolist() == [[97, 98, 0], [0xC3, 0xBC, 0]]


def test_long_texts_are_cut_between_characters():
    packed = rows.pack_texts(["abcdef", "aüü", "🦆"], 4)
    assert rows.unpack_texts(packed) == ["abcd", "aü", "🦆"]
    assert rows.unpack_texts(rows.pack_texts(["🦆"], 3)) == [""]


def test_texts_of_no_width():
    assert rows.unpack_texts(np.zeros((2, 0), np.uint8)) == ["", ""]


def test_damaged_texts_are_still_texts():
    assert rows.unpack_texts(np.array([[0xFF, 65]], np.uint8)) == ["\N{REPLACEMENT CHARACTER}A"]


def test_columns_by_hand():
    pooled = np.array([1, 2], np.float32)
    images = [
        Features(pooled, local([False, True, True])),
        "broken",
        Features(NO_POOLED, local([False] * 3)),
        Features(2 * pooled, None),
    ]
    sizes = np.array([[5, 6], [0, 0], [7, 8], [9, 9]])
    arrays, states = rows.pack_rows(images, sizes, Layout(max_features=4))
    both = WRITTEN | GLOBAL | LOCAL
    assert states.tolist() == [both, WRITTEN | SKIPPED, WRITTEN | LOCAL, WRITTEN | GLOBAL]
    assert rows.unpack_texts(arrays["reasons"]) == ["", "broken", "", ""]
    assert arrays["sizes"].tolist() == sizes.tolist()
    assert arrays["global"].tolist() == [[1, 2], [0, 0], [0, 0], [2, 4]]
    assert arrays["counts"].tolist() == [2, 0, 0, 0]
    assert arrays["scores"].tolist() == [[31, 32, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert arrays["scales"][0].tolist() == [21, 22, 0, 0]
    assert arrays["locations"][0].tolist() == [[1, 11], [2, 12], [0, 0], [0, 0]]
    assert arrays["descriptors"][0].tolist() == [[1] * 8, [2] * 8, [0] * 8, [0] * 8]
    assert "descriptor_scales" not in arrays


@pytest.mark.parametrize(
    ("encoding", "dtype", "width"),
    [("float32", "float32", 8), ("float16", "float16", 8), ("int8", "int8", 8), ("sign", "u1", 1)],
)
def test_the_layout_decides_types(encoding, dtype, width):
    layout = Layout(max_features=2, local_encoding=encoding, global_dtype="float16")
    arrays, _ = rows.pack_rows([Features(np.ones(3, np.float32), local([True] * 3))], None, layout)
    assert arrays["global"].dtype == np.float16
    assert arrays["descriptors"].dtype == dtype
    assert arrays["descriptors"].shape == (1, 2, width)
    assert ("descriptor_scales" in arrays) is (encoding == "int8")
    assert arrays["counts"].tolist() == [2]  # the first two of three


@pytest.mark.parametrize("images", [[], ["broken"], ["broken", ""]])
def test_images_without_features_tell_no_width(images):
    arrays, states = rows.pack_rows(images, None, Layout())
    assert arrays.keys() == {"reasons", "sizes"}
    assert states.tolist() == [WRITTEN | SKIPPED] * len(images)
    assert arrays["sizes"].shape == (len(images), 2)


def test_each_image_is_packed_by_itself(rng):
    layout = Layout(max_features=5, local_encoding="int8")
    images = [
        Features(rng.normal(size=4).astype(np.float32), local(rng.random(6) < 0.5))
        for _ in range(6)
    ]
    together, states = rows.pack_rows(images, None, layout)
    for number, image in enumerate(images):
        alone, state = rows.pack_rows([image], None, layout)
        assert state == states[number]
        for name, values in alone.items():
            np.testing.assert_array_equal(values[0], together[name][number])


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
    with pytest.raises(ValueError, match="on disk"):
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
