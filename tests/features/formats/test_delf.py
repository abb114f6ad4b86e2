import struct

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.formats import delf
from delg_jax.features.local_features import LocalFeatures

# The wire format, by hand: a tag is (number << 3) | type, with type 2 for what has a length.
# Lengths below 128 take one byte.


def chunk(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def datum(values, shape=None):
    dims = bytes(shape if shape is not None else [len(values)])
    return chunk(1, chunk(1, dims)) + chunk(2, chunk(1, floats(values)))


def feature(values, x=1.0, y=2.0, scale=0.5, strength=3.0):
    """One element of a local file; every number is a field of type 5, four bytes."""
    numbers = {2: x, 3: y, 4: scale, 5: 0.0, 6: strength}
    fields = [bytes([number << 3 | 5]) + floats([value]) for number, value in numbers.items()]
    return chunk(1, chunk(1, datum(values)) + b"".join(fields))


def local_of(rng, count, dim=4, masked=()):
    return LocalFeatures(
        locations=rng.random((count, 2), np.float32),
        scales=rng.random(count, np.float32),
        scores=rng.random(count, np.float32),
        descriptors=rng.normal(size=(count, dim)).astype(np.float32),
        mask=~np.isin(np.arange(count), masked),
    )


def test_a_file_by_hand_is_read(tmp_path):
    path = tmp_path / "a.delg_local"
    path.write_bytes(feature([0.25, -1.0], x=7, y=8) + feature([3.0, 4.0], strength=9))
    local = delf.read_local(path)
    assert local.locations.tolist() == [[8, 7], [2, 1]]
    assert local.scales.tolist() == [0.5, 0.5]
    assert local.scores.tolist() == [3, 9]
    assert local.descriptors.tolist() == [[0.25, -1], [3, 4]]
    assert local.mask.all()


def test_a_file_is_written_as_by_hand(tmp_path):
    local = LocalFeatures(
        np.array([[8, 7], [5, 5], [2, 1]], np.float32),
        np.array([0.5, 1, 0.5], np.float32),
        np.array([3, 2, 9], np.float32),
        np.array([[0.25, -1], [5, 5], [3, 4]], np.float16),
        np.array([True, False, True]),
    )
    delf.write_local(tmp_path / "a", local)
    expected = feature([0.25, -1.0], x=7, y=8) + feature([3.0, 4.0], strength=9)
    assert (tmp_path / "a").read_bytes() == expected
    delf.write_global(tmp_path / "b", np.array([1.0, -2.0], np.float32))
    assert (tmp_path / "b").read_bytes() == datum([1.0, -2.0])


@pytest.mark.parametrize("count", [0, 1, 30])
def test_local_features_come_back_without_the_masked(tmp_path, rng, count):
    local = local_of(rng, count, dim=40, masked=(1, 5))
    delf.write_local(tmp_path / "a", local)
    found = delf.read_local(tmp_path / "a")
    assert len(found.mask) == local.mask.sum()
    if count:
        for ours, theirs in zip(found, local, strict=True):
            np.testing.assert_array_equal(ours, theirs[local.mask])


def test_a_global_descriptor_comes_back(tmp_path, rng):
    descriptor = rng.normal(size=2048).astype(np.float32)
    delf.write_global(tmp_path / "a", descriptor)
    np.testing.assert_array_equal(delf.read_global(tmp_path / "a"), descriptor)


def test_an_empty_local_file_holds_no_features(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    local = delf.read_local(tmp_path / "a")
    assert local.locations.shape == (0, 2)
    assert local.mask.shape == (0,)


def test_a_failed_write_leaves_nothing(tmp_path, rng):
    local = local_of(rng, 2)._replace(scales=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="float"):  # NumPy's error
        delf.write_local(tmp_path / "a", local)
    assert list(tmp_path.iterdir()) == []


WITHOUT_STRENGTH = chunk(1, feature([1.0])[2:-5])
LOCAL = {
    "truncated": feature([1.0, 2.0])[:-3],
    "garbage": b"\xff" * 40,
    "text": b"hello world",
    "another message": chunk(9, b"foreign"),
    "global": datum([1.0, 2.0]),
    "other lengths": feature([1.0, 2.0]) + feature([1.0]),
    "no descriptor": feature([]),
    "no strength": WITHOUT_STRENGTH,
    "not finite": feature([1.0, float("nan")]),
    "nowhere": feature([1.0], x=float("inf")),
}
GLOBAL = {
    "empty": b"",
    "truncated": datum([1.0, 2.0])[:-3],
    "garbage": b"\xff" * 40,
    "text": b"hello world",
    "local": feature([1.0, 2.0]),
    "wrong shape": datum([1.0, 2.0], shape=[3]),
    "not finite": datum([float("inf")]),
}


@pytest.mark.parametrize(
    ("read", "content"),
    [(delf.read_local, content) for content in LOCAL.values()]
    + [(delf.read_global, content) for content in GLOBAL.values()],
    ids=[*(f"local {name}" for name in LOCAL), *(f"global {name}" for name in GLOBAL)],
)
def test_a_file_of_another_kind_is_named_in_one_line(tmp_path, read, content):
    path = tmp_path / "broken.file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.file'") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        delf.read_local(tmp_path / "absent")
    with pytest.raises(UserError, match="Is a directory"):
        delf.read_global(tmp_path)


def test_lengths_that_differ_are_named(tmp_path):
    (tmp_path / "a").write_bytes(LOCAL["other lengths"])
    with pytest.raises(UserError, match=r"\[1, 2\]"):
        delf.read_local(tmp_path / "a")
