import hashlib
import io
import os

import pytest

from delg_jax import file_stamps
from delg_jax.file_stamps import Stamp


def test_a_stamp_is_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))
    assert file_stamps.stamp(path) == (3, 1_234_567_890_123_456_789, "")
    (tmp_path / "link").symlink_to(path)
    assert file_stamps.stamp(tmp_path / "link") == file_stamps.stamp(path)
    assert file_stamps.stamp(tmp_path / "absent") == (-1, 0, "")


def test_the_digest_of_bytes_and_of_their_file_is_one(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_stamps.digest_of_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()[:32]
    assert file_stamps.digest_of_file(tmp_path / "a") == file_stamps.digest_of_bytes(b"abc")
    assert file_stamps.digest_of_file(tmp_path / "absent") == ""


@pytest.mark.parametrize("size", [1001, 4000])
def test_blocks_stand_for_a_large_file(monkeypatch, size):
    monkeypatch.setattr(file_stamps, "_WHOLE", 1000)
    monkeypatch.setattr(file_stamps, "_BLOCK", 10)
    data = bytes(range(250)) * 16
    data = data[:size]
    found = file_stamps.digest(io.BytesIO(data))
    assert found != file_stamps.digest(io.BytesIO(data), whole=True)
    assert file_stamps.digest(io.BytesIO(data + b"x")) != found
    seen = {
        position
        for n in range(16)
        for position in range(n * (size - 10) // 15, 10 + n * (size - 10) // 15)
    }
    assert {0, size - 1} <= seen
    for position in range(0, size, 7):
        changed = bytearray(data)
        changed[position] ^= 1
        assert (file_stamps.digest(io.BytesIO(changed)) != found) == (position in seen)
        whole = [file_stamps.digest_of_bytes(bytes(one), whole=True) for one in (changed, data)]
        assert whole[0] != whole[1]


@pytest.mark.parametrize(
    ("data", "time", "found"),
    [
        (b"abc", 5, ""),
        (b"abc", 6, ""),  # a copy
        (b"abd", 5, ""),  # not noticed, because nothing is read
        (b"abd", 6, "has other content"),
        (b"abcd", 5, "has 4 bytes, not 3"),
        (None, 0, "is absent"),
    ],
)
def test_a_difference_says_what_changed(tmp_path, data, time, found):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    os.utime(path, ns=(5, 5))
    before = file_stamps.stamp_with_digest(path)
    assert before == Stamp(3, 5, hashlib.sha256(b"abc").hexdigest()[:32])
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
        os.utime(path, ns=(time, time))
    assert file_stamps.difference(before, path) == found
    assert file_stamps.difference(before, None) == "is absent"


def test_stamps_of_all_files_are_their_sum_and_latest_times(tmp_path):
    for number, name in enumerate("ab", 1):
        (tmp_path / name).write_bytes(b"x" * number)
        os.utime(tmp_path / name, ns=(0, 10 - number))
    paths = [tmp_path / "a", tmp_path / "b"]
    changed = max(path.stat().st_ctime_ns for path in paths)
    assert file_stamps.stamp_of_all(paths).tolist() == [3, 9, changed]
    for absent in ([], [*paths, tmp_path / "c"]):
        assert file_stamps.stamp_of_all(absent).tolist() == [-1, -1, -1]


def test_a_file_that_no_system_can_hold_has_no_stamp():
    assert file_stamps.stamps(["a\0b"]).tolist() == [[-1, -1, -1]]
    assert file_stamps.stamps([]).shape == (0, 3)


def test_content_is_recognised_by_the_digest_of_an_earlier_version_too():
    sha = bytes.fromhex(file_stamps.digest_of_bytes(b"abc", whole=True))
    blake = hashlib.blake2b(b"abc", digest_size=16).digest()
    for digest in (sha, blake):
        assert file_stamps.has_content(b"abc", digest)
        assert not file_stamps.has_content(b"abd", digest)


def test_a_folder_is_identified_by_times_or_by_content(tmp_path):
    def digests():
        return [file_stamps.digest_of_path(tmp_path, by_content) for by_content in (False, True)]

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"abc")
    os.utime(tmp_path / "sub" / "a", ns=(5, 5))
    before = digests()
    # As records of earlier versions hold them
    assert before[0] == hashlib.sha256(b"sub/a\0(3, 5)\0").hexdigest()[:32]
    content = hashlib.sha256(b"abc").hexdigest()
    assert before[1] == hashlib.sha256(f"sub/a\0{content}\0".encode()).hexdigest()[:32]
    os.utime(tmp_path / "sub" / "a", ns=(6, 6))
    times, contents = digests()
    assert times != before[0]
    assert contents == before[1]
    (tmp_path / "sub" / "a").write_bytes(b"abd")
    assert digests()[1] != before[1]
    (tmp_path / "sub" / "a").rename(tmp_path / "a")
    assert digests()[1] not in (before[1], contents)
