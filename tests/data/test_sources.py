import concurrent.futures
import io
import logging
import os
import pickle
import re
import tarfile

import numpy as np
import pytest

from delg_jax.data import FileSource, JoinedSource
from delg_jax.data.listing import open_images
from delg_jax.errors import UserError
from tests.data.test_listing import refuse


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
    monkeypatch.setattr("delg_jax.data.sources._LARGEST", 0)
    with pytest.raises(OSError, match="1 bytes"):
        files.read(0)


def add(archive, name, data=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


def write(path, *names, **options):
    """A tar whose members hold their own names."""
    with tarfile.open(path, "w", **options) as archive:
        for name in names:
            add(archive, name, f"bytes of {name}".encode(errors="surrogateescape"))
    return path


def read_all(source):
    return {name: source.read(index) for index, name in enumerate(source.names)}


@pytest.fixture
def tar(tmp_path):
    return tmp_path / "photos.tar"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_images_of_a_tar_are_read_where_they_lie(tar, form):
    long = "folder/" * 20 + "é.jpg"
    write(tar, "z.jpg", "a/b.PNG", "notes.txt", long, "./c.gif", format=form)
    source = open_images(str(tar))
    assert source.names == ["a/b.PNG", "c.gif", long, "z.jpg"]
    assert source.labels.tolist() == [-1] * 4
    assert read_all(source) == {
        "a/b.PNG": b"bytes of a/b.PNG",
        "c.gif": b"bytes of ./c.gif",
        long: f"bytes of {long}".encode(),
        "z.jpg": b"bytes of z.jpg",
    }
    assert [path.name for path in tar.parent.iterdir()] == ["photos.tar"]


def test_names_never_lead_out_of_a_folder(tar):
    write(tar, "/etc/a.jpg", "../../b.jpg", "c/../../d.jpg", "//e.jpg", "./f//g.jpg", "..\\h.jpg")
    assert open_images(str(tar)).names == [
        "b.jpg",
        "d.jpg",
        "e.jpg",
        "etc/a.jpg",
        "f/g.jpg",
    ]  # on Linux `..\h.jpg` is the name of a hidden file


def test_links_and_devices_are_left_out(tar, tmp_path, caplog):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(tar, "w") as archive:
        add(archive, "link.jpg", type=tarfile.SYMTYPE, linkname=str(tmp_path / "secret.jpg"))
        add(archive, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(archive, "pipe.jpg", type=tarfile.FIFOTYPE)
        add(archive, "zero.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        add(archive, "folder.jpg", type=tarfile.DIRTYPE)
        add(archive, "good.jpg", b"good")
        add(archive, "turned.jpg", b"file")
        add(archive, "turned.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "._good.jpg", b"of a Mac")
    with caplog.at_level(logging.WARNING):
        source = open_images(str(tar))
    assert read_all(source) == {"good.jpg": b"good"}
    (message,) = caplog.messages
    assert re.match(f"{tar}: 1 images; .*1 hidden, 5 links", message)


def test_names_of_systems_and_other_endings_are_left_out(tar, caplog):
    write(tar, "a.jpe", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.jpg", "notes.txt", "b.JFIF")
    assert open_images(str(tar)).names == ["a.jpe", "b.JFIF"]
    (message,) = caplog.messages
    assert re.match(rf"{tar}: 2 images; .*2 hidden, 1 .*\(\.txt 1\)$", message)


def test_of_one_name_the_last_member_counts(tar):
    with tarfile.open(tar, "w") as archive:
        add(archive, "a.jpg", b"first")
        add(archive, "./a.jpg", b"second")
    assert read_all(open_images(str(tar))) == {"a.jpg": b"second"}


def test_names_that_are_not_utf8_are_escaped(tar):
    write(tar, "caf\udce9.jpg", format=tarfile.GNU_FORMAT)
    assert open_images(str(tar)).names == ["caf\\xe9.jpg"]


def test_opening_reads_only_headers(tar, monkeypatch):
    with tarfile.open(tar, "w") as archive:
        for number in range(20):
            add(archive, f"{number}.jpg", bytes(100_000))
    taken = []

    class Counting(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            taken.append(len(data))
            return data

    monkeypatch.setattr(tarfile, "bltn_open", lambda name, mode: Counting(name))
    assert len(open_images(str(tar))) == 20
    assert 20 * 512 < sum(taken) < 45 * 512


def test_threads_and_processes_may_read(tar):
    write(tar, *(f"{number}.jpg" for number in range(50)))
    source = pickle.loads(pickle.dumps(open_images(str(tar))))
    order = [*range(50)] * 20
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.read, order))
    assert found == [f"bytes of {source.names[index]}".encode() for index in order]


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar.xz", "tar.bz2", "TAR.ZST"])
def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path, ending):
    (tmp_path / f"photos.{ending}").write_bytes(b"whatever")
    refuse(tmp_path / f"photos.{ending}", "run (gunzip|unxz|bunzip2|unzstd)$")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_compressed_tar_with_the_wrong_name_is_refused(tar, mode):
    with tarfile.open(tar, mode) as archive:
        add(archive, "a.jpg", b"picture")
    refuse(tar, "uncompressed tar")


@pytest.mark.parametrize("data", [b"", b"no tar", bytes(100), b"\xff" * 5000, b"a" * 512])
def test_what_is_no_tar_is_refused(tar, data):
    tar.write_bytes(data)
    refuse(tar, "uncompressed tar.*: ")


def test_a_tar_without_images_is_refused(tar):
    for names in (["notes.txt"], []):
        write(tar, *names)
        refuse(tar, r"at least one image \(\.jpg")


def test_a_tar_that_breaks_off_anywhere_is_refused(tar):
    write(tar, "a.jpg", "b.jpg", "folder/" * 30 + "c.jpg", format=tarfile.GNU_FORMAT)
    data = tar.read_bytes()
    with tarfile.open(tar) as archive:
        archive.getmembers()
        end = archive.offset  # whence only zeros follow
    for length in [*range(0, end, 128), end, end + 511]:
        tar.write_bytes(data[:length])
        refuse(tar, "uncompressed tar.*: ")
    tar.write_bytes(data[: end + 512])
    assert len(open_images(str(tar))) == 3


def test_a_damaged_header_is_refused(tar):
    write(tar, "a.jpg", "b.jpg", "c.jpg")
    data = bytearray(tar.read_bytes())
    data[1024 + 150] ^= 1  # in the sum of the second header
    tar.write_bytes(data)
    refuse(tar, "damaged at byte 1024")


@pytest.mark.parametrize("size", [-512, -2048, -(2**40), 2**40, 2**63 - 1])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_forged_size_is_refused(tar, size, kind):
    header = bytearray(tarfile.TarInfo("forged.jpg").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = kind
    header[124:136] = (size % 2**96).to_bytes(12, "big")
    header[124] |= 0x80 if size > 0 else 0xFF
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar.write_bytes(write(tar, "a.jpg").read_bytes()[:1024] + bytes(header) + bytes(2048))
    with pytest.raises(UserError, match=f"--images = '{tar}'"):
        open_images(str(tar))


def test_a_giant_member_is_not_read(tar):
    write(tar, "a.jpg")
    data = tar.read_bytes()[:1024]
    member = tarfile.TarInfo("giant.jpg")
    member.size = 2**30 + 512
    tar.write_bytes(data + member.tobuf())
    with tar.open("r+b") as file:
        file.truncate(1024 + 512 + member.size + 1024)
    source = open_images(str(tar))
    assert source.read(0) == b"bytes of a.jpg"
    with pytest.raises(OSError, match="1073742336 bytes"):
        source.read(1)


def test_a_tar_that_shrinks_is_noticed(tar):
    source = open_images(str(write(tar, "a.jpg", "b.jpg")))
    tar.write_bytes(tar.read_bytes()[:1540])
    assert source.read(0) == b"bytes of a.jpg"
    with pytest.raises(OSError, match="shorter"):
        source.read(1)
