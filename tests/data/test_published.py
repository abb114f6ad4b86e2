"""Published data sets are downloaded whole, from a server of their layout, or not at all."""

import dataclasses
import hashlib
import io
import re
import tarfile
import urllib.parse

import pytest

from delg_jax import downloads
from delg_jax.cli.main import main
from delg_jax.data import published
from delg_jax.errors import UserError
from tests import file_server

OXFORD, DISTRACTORS, LANDMARKS, ILIAS = "roxford5k", "revisitop1m", "gldv2_test", "ilias"
PARTS = 3  # of R1M and Google Landmarks v2 here


def tar_of(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def picture(number):
    return bytes([number]) * (1000 + number)


CONTENTS = {
    "gnd_roxford5k.pkl": b"truth",
    "oxbuild_images-v1.tgz": tar_of({"a_0.jpg": picture(1), "deep/er/a_1.jpg": picture(2)}),
    "revisitop1m.txt": b"00/x1\n01/x2\n02/x3\n",
    **{
        f"revisitop1m.{n}.tar.gz": tar_of({f"0{n - 1}/x{n}.jpg": picture(n)})
        for n in range(1, PARTS + 1)
    },
    **{f"{name}.csv": name.encode() for name in ("test", "recognition_solution_v2.1")},
    "retrieval_solution_v2.1.csv": b"retrieval",
    **{f"images_{n:03d}.tar": tar_of({"a/b/c/d.jpg": picture(n)}, "w") for n in range(PARTS)},
}
_LISTS = {file.path: file.name for file in published.PUBLISHED[ILIAS].files if "ids" in file.path}
CONTENTS |= {name: name.encode() for name in _LISTS.values()} | {
    "ilias_core.tar": tar_of({"ilias_core/bold_000/query/Q000_00.jpg": picture(7)}, "w")
}
CONTENTS["checksums.txt"] = "".join(
    f"{hashlib.sha256(content).hexdigest()} https://server/ilias_data/{name}\n"
    for name, content in (
        ("ilias_core.tar", CONTENTS["ilias_core.tar"]),
        ("yfcc100m/ilias_core.tar.gz", b"other"),
    )
).encode()
CONTENTS |= {
    f"md5.{name.removesuffix('.tar')}.txt": f"{hashlib.md5(content).hexdigest()}  {name}\n".encode()
    for name, content in CONTENTS.items()
    if name.startswith("images_")
}


@pytest.fixture
def server(monkeypatch):
    """A server with the published layout, of which `PUBLISHED` has the addresses."""
    monkeypatch.setattr(downloads, "_pause", lambda _: 0.0)
    with file_server.running() as running:
        for name in (OXFORD, DISTRACTORS, LANDMARKS, ILIAS):
            data = published.PUBLISHED[name]
            files = [file for file in data.files if file.name in CONTENTS]
            for file in files:
                running.files[path_of(file)] = CONTENTS[file.name]
            moved = [dataclasses.replace(f, url=running.url(path_of(f))) for f in files]
            entry = dataclasses.replace(data, files=tuple(moved))
            monkeypatch.setitem(published.PUBLISHED, name, entry)
        yield running


def path_of(file):
    return urllib.parse.urlsplit(file.url).path.lstrip("/")


def fetch(root, *names, parallel=2):
    wanted = published.missing(names, root)
    sizes = published.sizes(wanted, parallel)
    published.download(names, root, wanted, sizes, parallel)


def tree(root):
    """Files below a folder, without locks."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


WHOLE = {
    OXFORD: {
        "roxford5k/gnd_roxford5k.pkl": b"truth",
        "roxford5k/jpg/a_0.jpg": picture(1),
        "roxford5k/jpg/a_1.jpg": picture(2),
    },
    DISTRACTORS: {
        "revisitop1m/revisitop1m.txt": CONTENTS["revisitop1m.txt"],
        **{f"revisitop1m/jpg/0{n - 1}/x{n}.jpg": picture(n) for n in range(1, PARTS + 1)},
    },
    LANDMARKS: {
        "gldv2/test.csv": b"test",
        "gldv2/recognition_solution_v2.1.csv": b"recognition_solution_v2.1",
        "gldv2/retrieval_solution_v2.1.csv": b"retrieval",
        **{
            f"gldv2/test/{name}": CONTENTS[name]
            for n in range(PARTS)
            for name in (f"images_{n:03d}.tar", f"md5.images_{n:03d}.txt")
        },
    },
    ILIAS: {
        "ilias/checksums.txt": CONTENTS["checksums.txt"],
        "ilias/ilias_core/bold_000/query/Q000_00.jpg": picture(7),
        **{f"ilias/{path}": name.encode() for path, name in _LISTS.items()},
    },
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_data_set_gets_the_layout_that_config_data_takes(tmp_path, server, name):
    fetch(tmp_path, name)
    assert tree(tmp_path) == WHOLE[name]
    asked = len(server.names)
    fetch(tmp_path, name)
    assert published.missing([name], tmp_path) == []
    assert len(server.names) == asked


def test_connections_that_break_off_and_move_end_the_same(tmp_path, server):
    server.broken = 3
    names = [name for name in server.files if "revisitop1m" in name]
    server.moved = {name: f"elsewhere/{name}" for name in names}
    server.files |= {f"elsewhere/{name}": server.files[name] for name in names}
    fetch(tmp_path, DISTRACTORS, parallel=4)
    assert tree(tmp_path) == WHOLE[DISTRACTORS]
    assert all(name.startswith("elsewhere/") for name in server.names)


def test_what_a_killed_download_left_is_resumed(tmp_path, server):
    (wanted,) = [one for one in published.missing([OXFORD], tmp_path) if one.file.unpack]
    target = tmp_path / "roxford5k" / ".unpacking" / "oxbuild_images-v1.tgz.unpacked"
    target.parent.mkdir(parents=True)
    downloads.part_of(target).write_bytes(CONTENTS[wanted.file.name][:50])
    fetch(tmp_path, OXFORD)
    assert tree(tmp_path) == WHOLE[OXFORD]
    assert 50 in server.asked


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (DISTRACTORS, "revisitop1m.2.tar.gz"),
        (LANDMARKS, "images_001.tar"),
        (ILIAS, "ilias_core.tar"),
    ],
)
def test_a_short_file_is_refused_and_only_it_is_fetched_again(tmp_path, server, name, file):
    last = next(path for path in server.files if path.endswith(file))
    server.short = {last}
    with pytest.raises(UserError, match=rf"download = '1 of \d+ files': .*{re.escape(last)}"):
        fetch(tmp_path, name)
    assert not (tmp_path / "revisitop1m" / "jpg").exists()
    assert not (tmp_path / "gldv2" / "test" / "images_001.tar").exists()
    assert not (tmp_path / "ilias" / "ilias_core").exists()
    server.short, server.names = set(), []
    fetch(tmp_path, name)
    assert tree(tmp_path) == WHOLE[name]
    assert server.names == [last]


def test_a_file_that_lacks_stops_no_other(tmp_path, server):
    lacking = next(path for path in server.files if path.endswith("md5.images_000.txt"))
    content = server.files.pop(lacking)
    with pytest.raises(UserError, match="download = '2 of 9 files'"):  # and its tar is unchecked
        fetch(tmp_path, LANDMARKS)
    assert (tmp_path / "gldv2" / "test" / "images_002.tar").exists()
    assert not (tmp_path / "gldv2" / "test" / "images_000.tar").exists()
    server.files[lacking] = content
    fetch(tmp_path, LANDMARKS)
    assert tree(tmp_path) == WHOLE[LANDMARKS]


def test_a_program_killed_before_images_got_their_name_is_finished(tmp_path, server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(published, "_finish", lambda *_: None)
        fetch(tmp_path, DISTRACTORS)
    assert not (tmp_path / "revisitop1m" / "jpg").exists()
    fetch(tmp_path, DISTRACTORS)
    assert tree(tmp_path) == WHOLE[DISTRACTORS]


@pytest.mark.parametrize(
    ("name", "file", "content", "word"),
    [
        (LANDMARKS, "md5.images_000.txt", b"<html>", "sum"),
        (
            ILIAS,
            "ilias_core.tar",
            tar_of({"ilias_core/bold_000/query/Q000_00.jpg": picture(8)}, "w"),
            "SHA-256",
        ),
    ],
)
def test_a_file_whose_sum_is_absent_or_another_is_refused(
    tmp_path, server, name, file, content, word
):
    path = next(path for path in server.files if path.endswith(file))
    server.files[path] = content
    with pytest.raises(UserError, match=f"{re.escape(file)}.*{word}"):
        fetch(tmp_path, name)
    assert not (tmp_path / "ilias" / "ilias_core").exists()


def test_a_full_disk_is_told_before_the_first_byte(tmp_path, server, monkeypatch):
    usage = dataclasses.make_dataclass("usage", ["free"])(100)
    monkeypatch.setattr(published.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="--data = .*GB free"):
        fetch(tmp_path, OXFORD)
    assert server.names == []


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path, server):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--data = .*file'"):
        fetch(tmp_path / "file", OXFORD)


def test_a_silent_server_leaves_the_sizes_of_the_page(tmp_path, server):
    server.server_close()
    server.shutdown()
    wanted = published.missing([OXFORD], tmp_path)
    sizes = published.sizes(wanted, 1)
    assert sum(sizes, published.Size()) == published.Size(about=1938 * 10**6, unknown=1)


def test_sizes_in_words():
    assert str(published.Size()) == "0 GB"
    assert str(published.Size(measured=2 * 10**9)) == "2.00 GB"
    assert str(published.Size(10**9, 10**9, 3)) == "about 2.00 GB, and 3 files of unknown size"
    assert str(published.Size(unknown=3)) == "3 files of unknown size"


def test_the_verb_lists_measures_and_downloads(tmp_path, server, capsys):
    assert main(["download", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in (*published.PUBLISHED, *published.GROUPS))
    flags = [f"--data={tmp_path}", "--parallel=2"]
    assert main(["download", OXFORD, *flags, "--dry_run"]) == 0
    total = len(CONTENTS["gnd_roxford5k.pkl"]) + len(CONTENTS["oxbuild_images-v1.tgz"])
    assert f"total: 2 files, {total / 1e9:.2f} GB" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert server.names == []
    assert main(["download", OXFORD, *flags]) == 0
    assert tree(tmp_path) == WHOLE[OXFORD]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "NAME"),
        (["roxford"], "roxford5k"),
        (["gldv1"], "https://www.kaggle.com"),
        (["ilias_distractors"], "https://github.com/ilias-vrg"),
    ],
)
def test_mistakes_of_the_verb_are_one_line(tmp_path, capsys, words, named):
    assert main(["download", *words, f"--data={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_the_published_addresses():
    files = [file for data in published.PUBLISHED.values() for file in data.files]
    assert len({file.url for file in files}) == len(files)
    paths = [(file.path, file.unpack) for file in published.PUBLISHED["gldv2_train"].files]
    assert ("train/images_499.tar", "") in paths
    assert len(published.PUBLISHED[DISTRACTORS].files) == 101
    answers = [file.url for file in files if "solution" in file.url]
    assert all("/google-landmark/ground_truth/" in url for url in answers)
    for data in published.PUBLISHED.values():
        own = {file.path for file in data.files}
        assert all(file.sums in own for file in data.files if file.sums)
        assert bool(data.files) != bool(data.page)
    assert published.expand(["gldv2", "gldv2_test"]) == list(published.GROUPS["gldv2"])
