import os
import pickle

import pytest

from delg_jax.data.images import BadImageError
from delg_jax.data.tfds_builders.manifest import ImageFile, by_id, inside


def test_an_id_is_looked_for_in_its_folders_and_flat(tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "abcd.jpg").write_bytes(b"nested")
    for name in ("abcd", "bcde"):
        (tmp_path / f"{name}.jpg").write_bytes(b"flat")
    assert by_id(tmp_path, "abcd").read_bytes() == b"nested"
    assert by_id(tmp_path, "bcde").read_bytes() == b"flat"
    assert by_id(tmp_path, "cdef") == tmp_path / "c" / "d" / "e" / "cdef.jpg"
    file = ImageFile(tmp_path.parent, tmp_path.name, "abcd", by_id)
    assert pickle.loads(pickle.dumps(file))() == b"nested"
    with pytest.raises(FileNotFoundError):
        ImageFile(tmp_path, "", "cdef", by_id)()


def test_a_path_gets_an_ending_if_it_has_none(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("one.jpg", "two.png", "v1.2.jpg"):
        (tmp_path / "sub" / name).write_bytes(name.encode())
    for name in ("one", "one.jpg", "two.png", "v1.2"):
        assert ImageFile(tmp_path, "sub", name, inside)().startswith(name.encode())


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", ".."])
def test_a_path_outside_the_folder_is_refused(tmp_path, name):
    with pytest.raises(BadImageError, match="inside the folder"):
        inside(tmp_path, name)


def test_odd_bytes_of_a_name_are_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"odd")
    assert inside(tmp_path, "caf\\xe9").read_bytes() == b"odd"
