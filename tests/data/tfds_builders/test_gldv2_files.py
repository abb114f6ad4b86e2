import functools
import http.server
import threading

import pytest

from delg_jax.data import open_retrieval
from delg_jax.data.tfds_builders import GoogleLandmarksV2, gldv2_files, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import image_id, make_gldv2, settings


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
    with pytest.raises(UserError, match=r"archive = '.*downloads.*': is damaged"):
        open_retrieval(settings("", tmp_path / "tfds", "gldv2"))


def test_a_file_that_cannot_be_fetched_is_one_error(tmp_path, published):
    (published / "metadata" / "index.csv").unlink()
    builder = GoogleLandmarksV2(config="index", data_dir=tmp_path, file_format="array_record")
    rule = r"config\.data\.root = '': names no folder, and the files could not be fetched"
    with pytest.raises(UserError, match=rule):
        prepare(builder, "")


def test_the_published_counts():
    assert gldv2_files.TARS == {"train": 500, "index": 100, "test": 20}
    assert gldv2_files.URL == "https://s3.amazonaws.com/google-landmark"
