import hashlib
import json

import pytest

from delg_jax.data.tfds_builders import manifest, tables
from delg_jax.errors import UserError


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "list.csv").write_text("id\n")
    (root / "a.tar").write_bytes(b"tar")
    return manifest.Source(root, {"list.csv": root / "list.csv"}, {"a.tar": (root / "a.tar", None)})


def test_what_is_written_is_read(tmp_path, source):
    tables.write(tmp_path / "train.csv", ("name",), [("a",)])
    begun = manifest.begin(source, {"min_side": 16})
    rows = [("x/ü,\n.jpg", 3, 4, "d")]
    manifest.write(tmp_path, begun, iter(rows), {"bad": "gone"})
    found = manifest.read(tmp_path)
    assert found.root == str((tmp_path / "raw").resolve())
    assert (found.settings, found.skipped) == ({"min_side": 16}, {"bad": "gone"})
    status = (tmp_path / "raw" / "list.csv").stat()
    digest = hashlib.sha256(b"id\n").hexdigest()[:32]
    assert found.lists == {"list.csv": (3, status.st_mtime_ns, digest)}
    assert found.archives["a.tar"].digest == hashlib.sha256(b"tar").hexdigest()[:32]
    assert set(found.outputs) == {"train.csv", "source.csv"}
    (row,) = tables.read(tmp_path / "source.csv", manifest.COLUMNS)
    assert row.text("path") == "x/ü,\n.jpg"


def test_downloaded_files_have_no_root(tmp_path):
    manifest.write(tmp_path, manifest.begin(manifest.Source(None), {}), [], {})
    assert manifest.read(tmp_path).root == ""


def test_without_a_manifest_there_is_none(tmp_path):
    assert manifest.read(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored.update(root="/elsewhere"),
        lambda stored: stored["skipped"].clear(),
        lambda stored: stored.pop("outputs"),
    ],
)
def test_a_damaged_manifest_is_one_error(tmp_path, source, change):
    manifest.write(tmp_path, manifest.begin(source, {}), [], {"bad": "gone"})
    path = tmp_path / "manifest.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"prepared data = '.*manifest\.json': .*is damaged"):
        manifest.read(tmp_path)
