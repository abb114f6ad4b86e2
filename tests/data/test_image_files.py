import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from delg_jax.data import image_files
from delg_jax.data.image_files import LeftOut, images_below, is_hidden
from delg_jax.data.images import decode


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(
    "name", [".a", "a/.b/c", "a/._b.jpg", "__MACOSX/a", "@eaDir/x.jpg", "Thumbs.db", "#recycle/a"]
)
def test_hidden_names(name):
    assert is_hidden(name)
    assert not is_hidden("a.b/c..d/e#.jpg")


def test_images_are_sorted_whatever_the_system_says(tmp_path, monkeypatch):
    top = tmp_path / "top"
    touch(top, "b/1.jpg", "a/2.jpg", "a.jpg", "a/b/3.jpg", "é.jpg", "../out/4.jpg")
    for name in ("d", "c", "e"):
        (top / name).symlink_to(tmp_path / "out")
    expected = ["a.jpg", "a/2.jpg", "a/b/3.jpg", "b/1.jpg", "c/4.jpg", "é.jpg"]
    assert images_below(top, LeftOut()) == expected

    class Turned:
        def __init__(self, path):
            self._entries = scan(path)

        def __enter__(self):
            return reversed(sorted(self._entries, key=lambda entry: entry.name))

        def __exit__(self, *_):
            self._entries.close()

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", Turned)
    assert images_below(top, LeftOut()) == expected


def test_folders_that_link_to_one_another_are_taken_once(tmp_path):
    touch(tmp_path, "top/a/1.jpg", "top/b/2.jpg", "out/c/3.jpg", "out/d/4.jpg")
    for place, target in [("top/a/b", "top/b"), ("top/b/a", "top/a"), ("top/out", "out")]:
        (tmp_path / place).symlink_to(tmp_path / target)
    (tmp_path / "out/c/d").symlink_to(tmp_path / "out/d")
    (tmp_path / "out/d/top").symlink_to(tmp_path / "top")
    (tmp_path / "out/d/above").symlink_to(tmp_path)
    left_out = LeftOut()
    names = images_below(tmp_path / "top", left_out)
    assert names == ["a/1.jpg", "b/2.jpg", "out/c/3.jpg", "out/d/4.jpg"]
    assert left_out.reasons == {"links to folders that are taken already": 5}


def test_a_folder_inside_of_one_that_is_linked_to_is_taken_once(tmp_path):
    touch(tmp_path, "out/c/3.jpg", "out/4.jpg")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/x").symlink_to(tmp_path / "out/c")
    (tmp_path / "top/z").symlink_to(tmp_path / "out")
    left_out = LeftOut()
    assert images_below(tmp_path / "top", left_out) == ["x/3.jpg", "z/4.jpg"]
    assert left_out.reasons.total() == 1


def test_nothing_left_out_is_nothing_said(tmp_path, caplog):
    touch(tmp_path, "a.jpg")
    left_out = LeftOut()
    assert images_below(tmp_path, left_out) == ["a.jpg"]
    left_out.log(str(tmp_path), 1)
    assert str(left_out) == ""
    assert not caplog.messages


def test_only_the_commonest_endings_are_listed():
    left_out = LeftOut()
    for count, ending in enumerate("abcdef", start=1):
        for _ in range(count):
            assert not left_out.is_image(f"x.{ending}")
    assert str(left_out) == "21 of other endings (.f 6, .e 5, .d 4, .c 3, .b 2 ...)"


def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg")
    scan = os.scandir

    def scandir(path):
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        images_below(tmp_path, LeftOut())


@pytest.mark.parametrize("form", sorted(image_files.ENDINGS))
def test_every_listed_ending_is_decoded(form):
    if form not in image_files.FORMATS:
        assert not set(image_files.ENDINGS[form]) & set(image_files.SUFFIXES)
        assert set(image_files.ENDINGS[form]) <= set(image_files.UNDECODABLE)
        return
    assert set(image_files.ENDINGS[form]) <= set(image_files.SUFFIXES)
    data = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 90, 40)).save(data, form)
    found = decode(data.getvalue())
    assert found.shape == (24, 32, 3)
    np.testing.assert_allclose(found[12, 16].astype(int), [200, 90, 40], atol=8)


def test_every_ending_of_a_format_that_pillow_knows_is_taken():
    Image.init()
    known = {
        end for end, form in Image.registered_extensions().items() if form in image_files.FORMATS
    }
    assert known <= set(image_files.SUFFIXES)


def test_a_format_that_pillow_was_built_without_is_not_taken():
    program = (
        "from PIL import features\n"
        "check = features.check\n"
        "features.check = lambda name: name != 'avif' and check(name)\n"
        "from delg_jax.data import image_files as formats\n"
        "print('AVIF' in formats.FORMATS, '.avif' in formats.SUFFIXES)\n"
        "print(formats.UNDECODABLE['.avif'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
    )
    assert run.stdout == "False False\nthis Pillow was built without avif\n"
