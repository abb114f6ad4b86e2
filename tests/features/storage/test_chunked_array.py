import itertools
import json

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.storage import chunked_array
from delg_jax.features.storage.chunked_array import ChunkedArray


def make(folder, values, chunk=2, level=1, context=None):
    array = ChunkedArray.create(folder, values.shape, values.dtype, chunk, level, context)
    array.write(slice(0, len(values)), values)
    return array


def refused(file="", rule=""):
    """Expects an error that names a file of the array, or its folder."""
    place = f"/{file}'" if file else ""
    return pytest.raises(UserError, match=rf"^feature store = '.*/(array|parts){place}.*{rule}")


@pytest.fixture
def values(rng):
    return rng.integers(-100, 100, (5, 3)).astype(np.int16)


def test_the_bytes_of_a_chunk_are_what_zarr_says(tmp_path):
    make(tmp_path / "array", np.array([[1, 2], [3, 4], [5, 6]], np.int16), level=0)
    content = json.loads((tmp_path / "array" / "zarr.json").read_text())
    assert content["zarr_format"] == 3
    assert (content["shape"], content["data_type"]) == ([3, 2], "int16")
    files = {path.name: path.read_bytes() for path in (tmp_path / "array").glob("c.*")}
    assert files.keys() == {"c.0.0", "c.1.0"}
    # Rows, then a checksum of four bytes; the last chunk is padded with zeros
    assert files["c.0.0"][:-4] == bytes([1, 0, 2, 0, 3, 0, 4, 0])
    assert files["c.1.0"][:-4] == bytes([5, 0, 6, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32"])
@pytest.mark.parametrize("shape", [(1,), (7,), (6, 3), (5, 2, 3), (0, 3), (4, 0), (0,)])
@pytest.mark.parametrize("level", [0, 1])
def test_any_shape_and_type_comes_back(tmp_path, rng, dtype, shape, level):
    values = rng.integers(0, 100, shape).astype(dtype)
    make(tmp_path / "array", values, 3, level)
    array = ChunkedArray(tmp_path / "array")
    assert (array.shape, array.dtype, array.nbytes) == (shape, values.dtype, values.nbytes)
    found = array.read(slice(0, len(values)))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
def test_rows_are_read_in_any_order(tmp_path, values, chunk):
    array = make(tmp_path / "array", values, chunk)
    assert array.chunk_rows == chunk
    for rows in (slice(1, 4), slice(3, 3), np.array([4, 0, 0, 2]), np.array([], np.int64)):
        np.testing.assert_array_equal(array.read(rows), values[rows])


def test_writing_row_by_row_gives_the_same_bytes(tmp_path, values):
    make(tmp_path / "whole", values)
    array = ChunkedArray.create(tmp_path / "rows", values.shape, values.dtype, 2, 1)
    for row in (3, 0, 4, 1, 2):
        array.write(slice(row, row + 1), values[row : row + 1])
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "rows" / path.name).read_bytes() == path.read_bytes()


def test_zeros_are_written_too(tmp_path):
    array = make(tmp_path / "array", np.zeros((4, 2), np.float32))
    assert [array.chunk_path(number).is_file() for number in range(2)] == [True, True]


@pytest.mark.parametrize("level", [0, 1])
def test_a_flipped_byte_anywhere_is_found(tmp_path, values, level):
    path = make(tmp_path / "array", values, level=level).chunk_path(0)
    whole = path.read_bytes()
    for place, bit in itertools.product(range(len(whole)), (0x01, 0x80)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with refused(r"c\.0\.0"):
            ChunkedArray(tmp_path / "array").read(slice(0, 1))
    path.write_bytes(whole)
    np.testing.assert_array_equal(ChunkedArray(tmp_path / "array").read(slice(0, 5)), values)


@pytest.mark.parametrize("level", [0, 1])
def test_a_chunk_that_is_cut_anywhere_is_found(tmp_path, values, level):
    array = make(tmp_path / "array", values, level=level)
    whole = array.chunk_path(1).read_bytes()
    for length in range(len(whole)):
        array.chunk_path(1).write_bytes(whole[:length])
        with refused(r"c\.1\.0"):
            array.read(slice(2, 3))
    array.chunk_path(1).write_bytes(whole)
    np.testing.assert_array_equal(array.read(slice(0, 5)), values)


def test_an_absent_chunk_is_found_and_only_that(tmp_path, values):
    array = make(tmp_path / "array", values)
    array.chunk_path(1).unlink()
    with refused(r"c\.1\.0"):
        array.read(np.array([0, 3]))
    for rows in (slice(0, 2), slice(4, 5)):
        np.testing.assert_array_equal(array.read(rows), values[rows])
    filled = array.read(slice(0, 5), fill=True)
    np.testing.assert_array_equal(filled, [*values[:2], [0] * 3, [0] * 3, values[4]])


def test_filling_in_does_not_hide_damage(tmp_path, values):
    array = make(tmp_path / "array", values)
    array.chunk_path(1).write_bytes(b"rubbish")
    with refused(r"c\.1\.0"):
        array.read(slice(0, 5), fill=True)


def test_a_chunk_that_unpacks_to_more_than_it_should_is_refused(tmp_path, values):
    array = make(tmp_path / "array", values)
    bomb = np.zeros((2**24, 3), np.int16)
    large = make(tmp_path / "large", bomb, len(bomb)).chunk_path(0)
    assert large.stat().st_size < 2**14
    array.chunk_path(1).write_bytes(large.read_bytes())
    with refused(r"c\.1\.0"):
        array.read(slice(0, 5))


@pytest.mark.parametrize("damage", ["absent", "cut", "empty", "number", "filled"])
def test_a_damaged_description_is_one_line(tmp_path, values, damage):
    path = make(tmp_path / "array", values).folder / "zarr.json"
    text = path.read_text()
    changed = {
        "cut": text[:40],
        "number": text.replace("[5,3]", "[5,-3]"),
        "filled": text.replace('"fill_value":0', '"fill_value":1'),
    }
    path.write_text(changed.get(damage, ""))
    if damage == "absent":
        path.unlink()
    with refused(r"zarr\.json") as error:
        ChunkedArray(tmp_path / "array")
    assert "\n" not in str(error.value)
    assert "tensorstore_spec" not in str(error.value)


def test_creating_again_changes_nothing(tmp_path, values):
    array = make(tmp_path / "array", values)
    before = {path: path.stat().st_mtime_ns for path in array.folder.iterdir()}
    again = ChunkedArray.create(tmp_path / "array", values.shape, values.dtype, 2, 1)
    np.testing.assert_array_equal(again.read(slice(0, 5)), values)
    assert {path: path.stat().st_mtime_ns for path in array.folder.iterdir()} == before


@pytest.mark.parametrize("other", [{"chunk": 3}, {"dtype": "int8"}, {"shape": (5, 4)}])
def test_creating_another_is_refused(tmp_path, values, other):
    make(tmp_path / "array", values)
    wanted = {"shape": values.shape, "dtype": values.dtype, "chunk": 2, **other}
    with refused():
        ChunkedArray.create(
            tmp_path / "array", wanted["shape"], wanted["dtype"], wanted["chunk"], 1
        )


@pytest.mark.parametrize("rows", [6, 7, 1000])
def test_a_larger_array_touches_no_chunk(tmp_path, values, rows):
    array = make(tmp_path / "array", values)
    before = {path: path.stat().st_mtime_ns for path in array.folder.glob("c.*")}
    array.resize(rows)
    assert {path: path.stat().st_mtime_ns for path in array.folder.glob("c.*")} == before
    for opened in (array, ChunkedArray(tmp_path / "array")):
        assert opened.shape == (rows, 3)
        np.testing.assert_array_equal(opened.read(slice(0, 5)), values)
    added = np.full((rows - 5, 3), 9, np.int16)
    array.write(slice(5, rows), added)
    whole = np.concatenate([values, added])
    np.testing.assert_array_equal(array.read(slice(0, rows)), whole)
    make(tmp_path / "at_once", whole)
    for path in (tmp_path / "at_once").glob("c.*"):
        assert (array.folder / path.name).read_bytes() == path.read_bytes()


def test_rows_outside_and_values_of_another_shape_are_refused(tmp_path, values):
    array = make(tmp_path / "array", values)
    for rows in (slice(4, 6), np.array([5])):
        with refused():
            array.read(rows)


def test_writes_in_the_background_are_finished(tmp_path, values):
    array = ChunkedArray.create(tmp_path / "array", values.shape, values.dtype, 2, 1)
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    for future in [array.start_writing(part, values[part]) for part in parts]:
        array.finish_writing(future)
    reads = [array.start_reading(part) for part in parts]
    np.testing.assert_array_equal(np.concatenate([*map(array.finish_reading, reads)]), values)


def test_a_failed_write_is_a_user_error(tmp_path, values):
    array = make(tmp_path / "array", values)
    array.chunk_path(0).unlink()
    array.chunk_path(0).mkdir()
    with refused():
        array.write(slice(0, 2), values[:2])


def test_a_cache_sees_what_was_written_through_another_array(tmp_path, values):
    context = chunked_array.cache(1)
    cached = make(tmp_path / "array", values, context=context)
    np.testing.assert_array_equal(cached.read(slice(0, 5)), values)
    ChunkedArray(tmp_path / "array").write(slice(0, 5), values + 1)
    reopened = ChunkedArray(tmp_path / "array", context)
    np.testing.assert_array_equal(reopened.read(slice(0, 5)), values + 1)


@pytest.mark.parametrize("levels", [101, 100_000])
def test_metadata_of_many_levels_is_refused(tmp_path, values, levels):
    """TensorStore would end the process."""
    make(tmp_path / "array", values)
    path = tmp_path / "array" / "zarr.json"
    path.write_text(path.read_text()[:-1] + ', "attributes": ' + "[" * levels + "]" * levels + "}")
    with refused(r"zarr\.json", "(levels|recursion)"):
        ChunkedArray(tmp_path / "array")
    with refused(r"zarr\.json"):
        ChunkedArray.create(tmp_path / "array", values.shape, values.dtype, 2, 1)


@pytest.fixture
def parts(rng, tmp_path):
    """Rows [7, 5, 3] in chunks of four, and their array with parts of a row and two columns."""
    values = rng.integers(-100, 100, (7, 5, 3)).astype(np.int16)
    array = ChunkedArray.create(
        tmp_path / "parts", values.shape, values.dtype, 4, 1, None, part_bytes=12
    )
    array.write(slice(0, 7), values)
    return values, array


def test_few_rows_and_their_first_columns_come_back(parts):
    values, array = parts
    assert (array.chunk_rows, array.nbytes) == (4, values.nbytes)
    assert {path.name for path in array.folder.glob("c.*")} == {"c.0.0.0", "c.1.0.0"}
    for rows in (slice(0, 7), slice(3, 6), np.array([6, 0, 3])):
        np.testing.assert_array_equal(array.read(rows), values[rows])
        for columns in (1, 2, 3, 5):
            found = ChunkedArray(array.folder).read(rows, columns=columns)
            np.testing.assert_array_equal(found, values[rows][:, :columns])


def test_damage_to_a_part_is_found_where_it_is_read_and_changes_the_checksums(parts):
    values, array = parts
    path, good = array.chunk_path(0), array.checksums(0)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with refused(r"c\.0\.0\.0"):
            ChunkedArray(array.folder).read(slice(0, 4))
    path.write_bytes(content[:-1])
    with pytest.raises(UserError):
        array.checksums(0)
    path.write_bytes(content)
    np.testing.assert_array_equal(ChunkedArray(array.folder).read(slice(0, 7)), values)
    for row, column in ((0, 0), (3, 4)):
        changed = values.copy()
        changed[row, column, 0] += 1
        array.write(slice(0, 7), changed)
        assert array.checksums(0) != good
    array.write(slice(0, 7), values)
    assert array.checksums(0) == good


def test_rows_that_were_not_written_are_known_and_an_error(rng, tmp_path):
    values = rng.integers(1, 100, (7, 5)).astype(np.int16)
    array = ChunkedArray.create(tmp_path, values.shape, values.dtype, 4, 1, None, part_bytes=4)
    array.write(slice(2, 3), values[2:3])
    array.write(slice(5, 7), values[5:7])
    np.testing.assert_array_equal(array.absent_rows(0), [0, 1, 3])
    np.testing.assert_array_equal(array.absent_rows(1), [4])
    with pytest.raises(UserError):
        array.read(slice(1, 3))
    for row in (0, 1, 3, 4):
        array.write(slice(row, row + 1), values[row : row + 1])
    at_once = ChunkedArray.create(
        tmp_path / "whole", (7, 5), values.dtype, 4, 1, None, part_bytes=4
    )
    at_once.write(slice(0, 7), values)
    for number in (0, 1):
        assert not len(array.absent_rows(number))
        assert array.chunk_path(number).read_bytes() == at_once.chunk_path(number).read_bytes()


@pytest.mark.parametrize(
    ("shape", "chunk", "most", "part"),
    [
        ((1000, 128), 64, 2**16, [1, 250, 128]),
        ((300, 16), 64, 2**16, [4, 300, 16]),
        ((7, 3), 6, 84, [2, 7, 3]),
        ((7, 3), 5, 84, [1, 7, 3]),
        ((7, 3), 4, 1, [1, 1, 3]),
        ((7,), 4, 2**16, [4, 7]),
    ],
)
def test_parts_are_as_large_as_they_may_be(tmp_path, rng, shape, chunk, most, part):
    values = rng.integers(-9, 9, (9, *shape)).astype(np.int16)
    array = ChunkedArray.create(tmp_path, values.shape, values.dtype, chunk, 0, part_bytes=most)
    array.write(slice(0, 9), values)
    codec = json.loads((tmp_path / "zarr.json").read_text())["codecs"][0]
    if part[0] == chunk and part[1] == shape[0]:
        assert codec["name"] == "bytes"
    else:
        assert codec["configuration"]["chunk_shape"] == part
    np.testing.assert_array_equal(ChunkedArray(tmp_path).read(slice(0, 9)), values)
    np.testing.assert_array_equal(array.read(np.array([8, 2]), columns=3), values[[8, 2], :3])
    array.checksums(0)


def test_rows_of_a_part_that_were_not_written_are_zeros(rng, tmp_path):
    values = rng.integers(1, 100, (8, 5)).astype(np.int16)
    array = ChunkedArray.create(tmp_path, values.shape, values.dtype, 4, 1, part_bytes=20)
    array.write(slice(1, 2), values[1:2])
    np.testing.assert_array_equal(array.absent_rows(0), [2, 3])
    np.testing.assert_array_equal(array.read(slice(0, 2)), [[0] * 5, values[1]])
