import io
import tarfile

import pytest
from hypothesis import strategies as st

from delg_jax.data.listing import open_images
from delg_jax.errors import UserError
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import damaged

_MOST = 1 << 20  # bytes read of an image; no file here is larger


def _tar(form):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in ("a.jpg", "b/../../c.png", "/etc/d.jpg", "ü" * 120 + ".jpg"):
            member = tarfile.TarInfo(name)
            member.size = 700
            archive.addfile(member, io.BytesIO(bytes(700)))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


@pytest.fixture(scope="module")
def wholes():
    return tuple(
        _tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[1:]
    )


@cases(400)
def test_any_tar_lists_its_own_bytes_or_is_refused(wholes, tmp_path, examples):
    path = tmp_path / "photos.tar"

    def check(data):
        path.write_bytes(data)
        source = outcome(lambda: open_images(str(path)))
        if isinstance(source, UserError):
            return
        assert len(source) == len(source.names) > 0
        for index, name in enumerate(source.names):
            assert not name.startswith("/")
            assert ".." not in name.split("/")
            try:
                image = source.read(index)
            except OSError:
                continue
            assert len(image) <= len(data)
            assert image in data

    hold(examples, check, damaged(wholes))


@cases(150)
def test_any_list_names_files_or_is_refused(tmp_path, examples):
    path = tmp_path / "photos.txt"
    line = st.one_of(st.just("a.jpg"), st.text("a/.#\0\r é\n", max_size=6), st.text(max_size=4))

    def check(data):
        path.write_bytes(
            data if isinstance(data, bytes) else "\n".join(data).encode("utf-8", "replace")
        )
        source = outcome(lambda: open_images(str(path)))
        if not isinstance(source, UserError):
            assert 0 < len(source) == len(set(source.names))

    hold(examples, check, st.lists(line, max_size=4) | st.binary(max_size=20))


@cases(150)
def test_any_argument_is_images_or_refused(tmp_path, monkeypatch, examples):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)

    def check(spec):
        source = outcome(lambda: open_images(spec))
        if not isinstance(source, UserError):
            assert len(source) == 1

    # nothing outside the folder, which may be large
    parts = st.sampled_from(("x", "*", "**", "/", "a", ".jpg", "[", "]", "?", "!", "é", "\0"))
    spec = st.lists(parts, max_size=5).map(lambda some: "".join(some).lstrip("/"))
    hold(examples, check, spec)
