import os

import numpy as np
import pytest

from delg_jax.data import FileSource, JoinedSource


@pytest.fixture
def source(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).write_bytes(name.encode())
        return FileSource(tmp_path, list(names), np.arange(len(names)))

    return make


def test_one_source_follows_the_other(source):
    joined = JoinedSource(source("a", "b"), source("c"))
    assert joined.names == ["a", "b", "c"]
    assert joined.labels.tolist() == [0, 1, 0]
    assert [joined.read(n) for n in range(len(joined))] == [b"a", b"b", b"c"]
    with pytest.raises(IndexError):
        joined.read(3)


def test_either_may_be_empty(source):
    for joined in (JoinedSource(source(), source("a")), JoinedSource(source("a"), source())):
        assert (joined.names, joined.read(0)) == (["a"], b"a")


def test_pipes_and_giants_are_not_read(source, tmp_path, monkeypatch):
    files = source("a", "b")
    (tmp_path / "b").unlink()
    os.mkfifo(tmp_path / "b")  # to read one would never end
    with pytest.raises(OSError, match="not a file"):
        files.read(1)
    monkeypatch.setattr("delg_jax.data.tar_images._LARGEST", 0)
    with pytest.raises(OSError, match="1 bytes, more than 0"):
        files.read(0)
