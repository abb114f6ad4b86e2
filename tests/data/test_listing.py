import logging
import os
import pickle
import re

import numpy as np
import pytest

from delg_jax.data.image_files import UNDECODABLE
from delg_jax.data.images import decode
from delg_jax.data.listing import open_images
from delg_jax.errors import UserError
from tests.photographs import draw, save


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {name}".encode(errors="replace"))


def refuse(spec, names):
    """Asserts that a specification ends in one line that names flag, value and more."""
    with pytest.raises(UserError, match=rf"^--images = .*: .*{names}") as caught:
        open_images(str(spec))
    assert str(caught.value).isprintable()


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    touch(root, "b.jpg", "a/z.PNG", "a/b/c.jpeg", "c.txt", "README", "a.webp", "d.gif", "a.b/e.tif")
    touch(root, ".hidden.jpg", ".thumbnails/a.jpg", "a/._z.PNG")
    return root


ALL = ["a.b/e.tif", "a.webp", "a/b/c.jpeg", "a/z.PNG", "b.jpg", "d.gif"]


def test_a_folder_is_all_images_below_it(photos):
    source = open_images(str(photos))
    assert source.names == ALL
    assert len(source) == len(ALL)
    assert source.labels.tolist() == [-1] * len(ALL)
    assert [source.read(n) for n in range(6)] == [f"bytes of {name}".encode() for name in ALL]


def test_a_folder_may_be_given_relative_to_here(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    source = open_images("photos/")
    monkeypatch.chdir("/")
    assert source.names == ALL
    assert source.read(4) == b"bytes of b.jpg"


def test_links_are_followed_but_no_folder_is_taken_twice(photos, tmp_path, caplog):
    touch(tmp_path / "photos elsewhere", "secret.jpg")
    (photos / "link.jpg").symlink_to(tmp_path / "photos elsewhere" / "secret.jpg")
    (photos / "relative.jpg").symlink_to("../photos elsewhere/secret.jpg")
    (photos / "inside.jpg").symlink_to("a/z.PNG")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "a" / "loop").symlink_to(photos)
    (photos / "itself.jpg").symlink_to("itself.jpg")
    (photos / "elsewhere").symlink_to(tmp_path / "photos elsewhere")
    (photos / "again").symlink_to(tmp_path / "photos elsewhere")
    (photos / "everything").symlink_to("/")
    with caplog.at_level(logging.WARNING):
        source = open_images(str(photos))
    more = ["again/secret.jpg", "inside.jpg", "link.jpg", "relative.jpg"]
    assert source.names == sorted([*ALL, *more])
    assert source.read(source.names.index("inside.jpg")) == b"bytes of a/z.PNG"
    assert source.read(source.names.index("again/secret.jpg")) == b"bytes of secret.jpg"
    (message,) = caplog.messages
    counts = r"3 hidden, 2 links .*, 3 links .*, 2 .*\(none 1, \.txt 1\)$"
    assert re.match(rf"{photos}: 10 images; .*{counts}", message)


def test_a_folder_given_by_a_link_is_followed(photos, tmp_path, caplog):
    (tmp_path / "link").symlink_to(photos)
    source = open_images(str(tmp_path / "link"))
    assert source.names == ALL
    assert source.read(4) == b"bytes of b.jpg"
    assert "links" not in caplog.text


def test_pipes_are_no_images(photos):
    os.mkfifo(photos / "pipe.jpg")
    assert open_images(str(photos)).names == ALL
    assert "pipe.jpg" not in open_images(str(photos / "*")).names


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["b.jpg"]),
        ("?.*", ["a.webp", "b.jpg", "c.txt", "d.gif"]),  # any ending: the user asked for it
        ("[ab]*", ["a.webp", "b.jpg"]),
        ("**/*.[pj]*", ["a/b/c.jpeg", "b.jpg"]),
        ("**/z.*", ["a/z.PNG"]),
        ("*/*", ["a.b/e.tif", "a/z.PNG"]),
        ("**", [*ALL[:5], "README", "c.txt", ALL[5]]),
        (".*", [".hidden.jpg"]),
        (".thumb*/*", [".thumbnails/a.jpg"]),
        ("a/../*.jpg", ["b.jpg"]),
    ],
)
def test_a_glob_is_all_files_that_match(photos, pattern, names):
    source = open_images(f"{photos}/{pattern}")
    assert source.names == sorted(names)
    assert source.read(0) == f"bytes of {min(names)}".encode()


def test_names_of_a_glob_begin_after_its_last_plain_folder(photos, monkeypatch):
    assert open_images(f"{photos}/a/*/c.jpeg").names == ["b/c.jpeg"]
    monkeypatch.chdir(photos / "a")
    assert open_images("*.PNG").names == ["z.PNG"]
    assert open_images("../**/*.gif").names == ["d.gif"]


def test_two_stars_do_not_follow_links(photos):
    (photos / "a" / "loop").symlink_to(photos)
    assert open_images(f"{photos}/**/*.gif").names == ["d.gif"]


def test_an_existing_name_is_no_glob(tmp_path):
    touch(tmp_path, "[1]/a.jpg", "1/b.jpg", "what?.jpg")
    assert open_images(str(tmp_path / "[1]")).names == ["a.jpg"]
    assert open_images(str(tmp_path / "what?.jpg")).names == ["what?.jpg"]


def write_list(tmp_path, content):
    path = tmp_path / "lists" / "some.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_list_keeps_its_lines(photos, tmp_path):
    lines = [
        "# my list",
        "",
        f"{photos}/b.jpg",
        "../photos/a/z.PNG",
        "  ",
        "gone.jpg",
        "./#1 é.jpg",
    ]
    touch(tmp_path / "lists", "#1 é.jpg")
    source = open_images(write_list(tmp_path, "\r\n".join(lines)))
    assert source.names == [f"{photos}/b.jpg", "../photos/a/z.PNG", "gone.jpg", "./#1 é.jpg"]
    assert source.read(0) == b"bytes of b.jpg"
    assert source.read(1) == b"bytes of a/z.PNG"
    assert source.read(3) == "bytes of #1 é.jpg".encode()
    with pytest.raises(FileNotFoundError, match=r"lists/gone\.jpg"):
        source.read(2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_is_read_as_editors_write_it(tmp_path, encoding, end):
    names = ["é a.jpg", "two\u2028lines.jpg", "next\x85line.jpg", "form\x0cfeed.jpg"]
    text = end.join(["# list", f"{names[0]} \t", *names[1:], "", "  ", ""])
    assert open_images(write_list(tmp_path, text.encode(encoding))).names == names


def test_a_tilde_in_a_list_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "one.jpg", draw(1, 40, 40))
    (tmp_path / "list.txt").write_text("~/one.jpg\n")
    source = open_images(str(tmp_path / "list.txt"))
    assert source.read(0) == (tmp_path / "one.jpg").read_bytes()


def test_only_files_of_a_list_are_read(tmp_path):
    (tmp_path / "lists").mkdir()
    os.mkfifo(tmp_path / "lists" / "pipe.jpg")
    with (tmp_path / "lists" / "giant.jpg").open("wb") as file:
        file.truncate(2**30 + 1)
    names = ["pipe.jpg", "giant.jpg", "..", "/dev/zero", "x" * 999]
    source = open_images(write_list(tmp_path, "\n".join(names)))
    for number, reason in enumerate(["not a file", "1073741825 bytes", "not a f", "not a", "long"]):
        with pytest.raises(OSError, match=reason):
            source.read(number)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("", "at least one path"),
        ("# only\n\n  \n", "at least one path"),
        ("a.jpg\n\nb.jpg\na.jpg\n", r"lines 1 and 4 .*'a\.jpg'"),
        (b"a.jpg\ncaf\xe9.jpg\n", "UTF-8, .*byte 9, .*line 2"),
        ("a.jpg\0b.jpg", "zero byte"),
        ("a.jpg\n".encode("utf-16-le"), "zero byte.*UTF-16"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, content, names):
    refuse(write_list(tmp_path, content), names)


def test_a_picture_is_a_list_of_one(tmp_path):
    save(tmp_path / "photo.PNG", draw(0))
    source = open_images(str(tmp_path / "photo.PNG"))
    assert source.names == ["photo.PNG"]
    np.testing.assert_array_equal(decode(source.read(0)), draw(0))


@pytest.mark.parametrize("spec", ["", "no/such/folder", "a\0b", "x" * 9999, "gone.jpg", "gone.tar"])
def test_absent_images_are_refused(spec):
    refuse(spec, "not exist.* folder, .*glob .*list .*image")


@pytest.mark.parametrize("name", ["notes.pdf", "photo", "photos.zip", "list.csv", "/dev/null"])
def test_another_file_is_refused(tmp_path, name):
    if name != "/dev/null":
        touch(tmp_path, name)
    refuse(tmp_path / name, "must be a folder, .*glob .*list .*image")


def test_nothing_to_extract_is_refused(tmp_path):
    touch(tmp_path, "README", ".hidden.jpg")
    refuse(tmp_path, r"at least one image \(\.jpg, .*\.gif")
    refuse(tmp_path / "*.jpg", "at least one file")
    refuse(tmp_path / "gone" / "*.jpg", "at least one file")
    refuse(tmp_path / "a**" / "*.jpg", r"\*\* ")


def test_odd_bytes_of_names_are_escaped_and_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"odd")
    write_list(tmp_path, "../caf\\xe9.jpg")
    specs = (tmp_path, tmp_path / "*.jpg", tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    for spec in (*specs, tmp_path / "lists" / "some.txt"):
        source = open_images(str(spec))
        assert [name.removeprefix("../") for name in source.names] == ["caf\\xe9.jpg"]
        assert source.read(0) == b"odd"


ENDINGS = (
    "jpg JPEG jpe jfif mpo png apng webp tif tiff gif bmp avif jp2 j2k jpx ppm pgm pbm pnm PFM"
)


def test_every_ending_that_can_be_decoded_is_taken_in_any_letter_case(tmp_path, caplog):
    names = sorted(f"{n}.{ending}" for n, ending in enumerate(ENDINGS.split()))
    touch(tmp_path, *names, "a.heic", "b.HEIC", "c.heif", "d.xyz", "e")
    assert open_images(str(tmp_path)).names == names
    if ".heic" in UNDECODABLE:
        (message,) = caplog.messages
        counts = r"2 .*\(none 1, \.xyz 1\), 2 \.heic .*pillow-heif.*, 1 \.heif .*pillow-heif"
        assert re.match(rf"{tmp_path}: 21 images; .*{counts}", message)


@pytest.mark.skipif(".heic" not in UNDECODABLE, reason="pillow-heif is installed")
def test_pictures_that_need_a_package_name_it(tmp_path):
    touch(tmp_path, "a.heic")
    refuse(tmp_path, r"at least one image .*; .*1 \.heic .*pillow-heif")
    refuse(tmp_path / "a.heic", "pillow-heif")


def test_names_of_systems_are_left_out(tmp_path):
    hidden = [".ipynb_checkpoints/a.jpg", "a/._b.jpg", "@eaDir/b.jpg", "__MACOSX/c.jpg"]
    touch(tmp_path, *hidden, "a/.DS_Store", "Thumbs.db", "$RECYCLE.BIN/d.jpg", "a/b.jpg")
    assert open_images(str(tmp_path)).names == ["a/b.jpg"]


def test_a_folder_that_cannot_be_read_is_refused(photos, monkeypatch):
    scan = os.scandir

    def scandir(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    refuse(photos, "Permission denied: '.*/photos/a/b'")


def test_the_subject_is_the_callers():
    with pytest.raises(UserError, match=r"^config\.data\.images = 'gone'"):
        open_images("gone", "config.data.images")


def test_sources_are_small_and_picklable(photos, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(f"photos/{name}" for name in ALL))
    for spec in (photos, photos / "**", tmp_path / "list.txt"):
        data = pickle.dumps(open_images(str(spec)))
        assert len(data) < 1500
        assert pickle.loads(data).read(4).startswith(b"bytes of ")
