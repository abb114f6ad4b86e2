import hashlib
import io
import os

import pytest

from delg_jax.data.tfds_builders import manifest


def test_a_stamp_is_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))
    assert manifest.stamp(path) == (3, 1_234_567_890_123_456_789, "")
    (tmp_path / "link").symlink_to(path)
    assert manifest.stamp(tmp_path / "link") == manifest.stamp(path)
    assert manifest.stamp(tmp_path / "absent") == (-1, 0, "")


def test_the_digest_of_bytes_and_of_their_file_is_one(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert manifest.digest_of_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()[:32]
    assert manifest.digest_of_path(tmp_path / "a") == manifest.digest_of_bytes(b"abc")
    assert manifest.digest_of_path(tmp_path / "absent") == ""


@pytest.mark.parametrize("size", [1001, 4000])
def test_blocks_stand_for_a_large_file(monkeypatch, size):
    monkeypatch.setattr(manifest, "_WHOLE", 1000)
    monkeypatch.setattr(manifest, "_BLOCK", 10)
    data = bytes(range(250)) * 16
    data = data[:size]
    found = manifest.digest(io.BytesIO(data))
    assert found != manifest.digest(io.BytesIO(data), whole=True)
    assert manifest.digest(io.BytesIO(data + b"x")) != found
    seen = {
        place
        for n in range(16)
        for place in range(n * (size - 10) // 15, 10 + n * (size - 10) // 15)
    }
    assert {0, size - 1} <= seen
    for place in range(0, size, 7):
        changed = bytearray(data)
        changed[place] ^= 1
        assert (manifest.digest(io.BytesIO(changed)) != found) == (place in seen)
        assert manifest.digest(io.BytesIO(changed), True) != manifest.digest(io.BytesIO(data), True)
