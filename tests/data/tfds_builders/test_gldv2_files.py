import functools
import http.server
import io
import tarfile
import threading

import pytest

from delg_jax.data import images, open_retrieval
from delg_jax.data.tfds_builders import GoogleLandmarksV2, gldv2_files, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import image_id, make_gldv2, settings, write_tar


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server with the layout of the published one; yields its folder."""
    folder = tmp_path / "published"
    make_gldv2(folder, tars=2)
    for path in folder.glob("*.csv"):
        place = folder / ("ground_truth" if "solution" in path.name else "metadata")
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    for part in ("train", "index", "test"):
        (folder / "md5sum" / part).mkdir(parents=True)
        for path in (folder / part).glob("md5.*"):
            path.rename(folder / "md5sum" / part / path.name)
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(gldv2_files, "URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(gldv2_files, "TARS", {"train": 2, "index": 2, "test": 2})
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_a_folder_all_files_are_fetched_once(tmp_path, published):
    found = open_retrieval(settings("", tmp_path / "tfds", "gldv2"))
    published.rename(tmp_path / "elsewhere")
    assert sorted(found.database.names) == sorted(image_id(100 + n) for n in range(4))
    assert found.queries.names == [image_id(201)]
    again = open_retrieval(settings("", tmp_path / "tfds", "gldv2"))
    assert again.database.read(2) == found.database.read(2)
    assert not [path for path in tmp_path.rglob("*.tmp.*")]


def test_a_fetched_archive_is_checked(tmp_path, published):
    tar = published / "index" / "images_001.tar"
    tar.write_bytes(tar.read_bytes() + b"x")
    with pytest.raises(UserError, match="archive = '.*downloads.*'"):
        open_retrieval(settings("", tmp_path / "tfds", "gldv2"))


def test_a_file_that_cannot_be_fetched_is_one_error(tmp_path, published):
    (published / "metadata" / "index.csv").unlink()
    builder = GoogleLandmarksV2(config="index", data_dir=tmp_path, file_format="array_record")
    with pytest.raises(UserError, match=r"config\.data\.root = '': .*fetch"):
        prepare(builder, "")


def test_the_published_counts():
    assert gldv2_files.TARS == {"train": 500, "index": 100, "test": 20}
    assert gldv2_files.URL == "https://s3.amazonaws.com/google-landmark"


WANTED = {"abc1": (3, {"usage": "Public"}), "abd2": (4, {}), "gone": (5, {})}


def wanted():
    return WANTED


def load(items):
    """What comes of each item, read in order."""
    found = {}
    for item in items:
        try:
            found[item.name] = item.images["image"]()
        except images.BadImageError as error:
            found[item.name] = str(error)
    return found


def add(archive, name, data=b"evil", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


def test_wanted_members_come_in_order(tmp_path):
    write_tar(
        tmp_path / "a.tar", {"a/b/d/abd2.jpg": b"two", "x/other.jpg": b"no", "abc1.jpg": b"1"}
    )
    items = gldv2_files.TarItems(tmp_path / "a.tar", wanted)
    assert load(items()) == {"abd2": b"two", "abc1": b"1"}
    assert [(item.label, item.features) for item in items()] == [(4, {}), (3, {"usage": "Public"})]


def test_members_that_lead_elsewhere_are_refused(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "../abc1.jpg")
        add(archive, "/abd2.jpg")
        add(archive, "gone.jpg", b"", type=tarfile.SYMTYPE, linkname=str(secret))
        add(archive, "hard/abc1.jpg", b"", type=tarfile.LNKTYPE, linkname="../secret.jpg")
        add(archive, "pipe", b"", type=tarfile.FIFOTYPE)
        add(archive, "folder", b"", type=tarfile.DIRTYPE)
        add(archive, "good/abd2.jpg", b"good")
    before = sorted(tmp_path.iterdir())
    assert load(gldv2_files.TarItems(tmp_path / "a.tar", wanted)()) == {
        "a.tar:../abc1.jpg": "has a path outside the archive",
        "a.tar:/abd2.jpg": "has a path outside the archive",
        "a.tar:gone.jpg": "is a link or a device, not a file",
        "a.tar:hard/abc1.jpg": "is a link or a device, not a file",
        "a.tar:pipe": "is a link or a device, not a file",
        "abd2": b"good",
    }
    assert sorted(tmp_path.iterdir()) == before


def test_a_huge_member_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(gldv2_files, "_LARGEST_MEMBER", 3)
    write_tar(tmp_path / "a.tar", {"abc1.jpg": b"1234", "abd2.jpg": b"123"})
    found = load(gldv2_files.TarItems(tmp_path / "a.tar", wanted)())
    assert found == {"a.tar:abc1.jpg": "has 4 bytes, more than 3", "abd2": b"123"}


@pytest.mark.parametrize("size", [700, 2600])
def test_a_truncated_archive_gives_what_it_has(tmp_path, size):
    path = tmp_path / "a.tar"
    write_tar(path, {"abc1.jpg": b"1" * 600, "abd2.jpg": b"2" * 600})
    path.write_bytes(path.read_bytes()[:size])
    found = load(gldv2_files.TarItems(path, wanted)())
    whole = {name for name, value in found.items() if isinstance(value, bytes)}
    assert whole == ({"abc1"} if size > 1536 else set())
    assert all("truncated" in found[name] for name in found.keys() - whole)
    assert len(found) > len(whole)


def test_what_is_no_archive_is_an_item_without_image(tmp_path):
    (tmp_path / "a.tar").write_text("<html>" * 200)
    found = load(gldv2_files.TarItems(tmp_path / "a.tar", wanted)())
    assert list(found) == ["a.tar"]
    assert "truncated" in found["a.tar"]


def test_sums_are_compared(tmp_path, caplog):
    pairs = []
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", {"x.jpg": name.encode()})
        pairs.append((tmp_path / f"{name}.tar", tmp_path / f"md5.{name}.txt"))
    caplog.set_level("WARNING")
    gldv2_files.verify_archives(pairs)
    assert caplog.text == ""
    gldv2_files.verify_archives([(pairs[0][0], None), *pairs[1:]])
    assert "1 archives have no MD5 file" in caplog.text
    data = bytearray((tmp_path / "b.tar").read_bytes())
    data[600] ^= 1
    (tmp_path / "b.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"archive = '.*b\.tar': .*MD5"):
        gldv2_files.verify_archives(pairs)


def test_a_file_without_a_sum_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {})
    (tmp_path / "md5.a.txt").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"MD5 file = '.*md5\.a\.txt'"):
        gldv2_files.verify_archives([(tmp_path / "a.tar", tmp_path / "md5.a.txt")])


def test_no_archives_no_check():
    gldv2_files.verify_archives([])
