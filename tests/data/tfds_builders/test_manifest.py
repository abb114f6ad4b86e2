import hashlib
import json
import os
import pickle
import re
import shutil

import pytest

from delg_jax.data.images import BadImageError
from delg_jax.data.tfds_builders import manifest, tables
from delg_jax.data.tfds_builders.manifest import ImageFile, by_id, inside
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import (
    edit,
    image_id,
    image_path,
    jpeg,
    make_distractors,
    make_gldv1,
    make_gldv2,
    make_oxford,
    opened,
    place,
    prepared_folder,
    refused,
    write_tar,
)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "list.csv").write_text("id\n")
    (root / "a.tar").write_bytes(b"tar")
    return manifest.Source(root, {"list.csv": root / "list.csv"}, {"a.tar": (root / "a.tar", None)})


def test_written_values_are_read_back(tmp_path, source):
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
    with pytest.raises(UserError, match=r"prepared data = '.*manifest\.json'"):
        manifest.read(tmp_path)


@pytest.fixture
def root(tmp_path):
    make_gldv1(tmp_path / "raw")
    return tmp_path / "raw"


CHANGES = {
    "list": (
        lambda root: edit(root / "train.csv", lambda data: data + b"abcdef,u,7\n"),
        "train.csv has ",
    ),
    "list of the same size": (
        lambda root: edit(root / "train.csv", lambda data: data.replace(b",17\n", b",27\n")),
        "train.csv has ",
    ),
    "absent list": (lambda root: (root / "train.csv").unlink(), "train.csv is absent"),
    "absent image": (
        lambda root: image_path(root, 3).unlink(),
        "1 of 16 images are absent (first ",
    ),
    "replaced image": (
        lambda root: place(root / "train", image_id(3), jpeg(99)),
        "1 of 16 images have changed (first train/",
    ),
    "replaced image of the same size": (
        lambda root: edit(image_path(root, 3), lambda data: data[:-3] + b"\0" + data[-2:]),
        "1 of 16 images have changed (first train/",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_refused_with_the_difference(tmp_path, root, change):
    opened(root, tmp_path)
    folder = prepared_folder(tmp_path)
    apply, text = CHANGES[change]
    apply(root)
    rule = refused(root, tmp_path)
    assert f"{folder} was prepared of (then {root}): {text}" in rule
    assert f"delete {folder}" in rule
    assert "config.data.tfds_dir" in rule
    assert "leave it empty" in rule
    # Each remedy that is named works
    assert len(opened("", tmp_path).train) == 13
    if change != "absent list":
        shutil.rmtree(folder)
        assert opened(root, tmp_path, max_skipped=3).train.names


def test_a_source_that_was_only_copied_touched_or_moved_is_the_same(tmp_path, root):
    before = opened(root, tmp_path).train
    for path in [root / "train.csv", *root.rglob("*.jpg")]:
        os.utime(path, ns=(10**18, 10**18))
    assert opened(root, tmp_path).train.names == before.names
    copied = tmp_path / "another mount" / "gldv1"
    shutil.copytree(root, copied)
    root.rename(tmp_path / "gone")
    (tmp_path / "link").symlink_to(copied)
    spellings = (copied, f"{copied}/", os.path.relpath(copied), tmp_path / "link")
    for spelling in spellings:
        assert opened(spelling, tmp_path).train.names == before.names
    place(copied / "train", "unlisted", jpeg(5))  # no list names it
    (copied / "notes.txt").write_text("")
    assert opened(copied, tmp_path).train.names == before.names
    assert len(list((tmp_path / "tfds").rglob("manifest.json"))) == 1


def test_another_root_is_refused(tmp_path, root):
    opened(root, tmp_path)
    make_gldv1(tmp_path / "other", counts=(5, 3))
    assert "train.csv has " in refused(tmp_path / "other", tmp_path)
    assert f"(then {root}): " in refused(tmp_path / "other", tmp_path)


def test_a_class_that_was_added_later_is_refused(tmp_path):
    root = tmp_path / "photos"
    for label in ("bridge", "tower"):
        for number in range(4):
            path = root / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(number + 10 * (label == "tower")))
    opened(root, tmp_path, "image_folder")
    (root / "arch").mkdir()
    (root / "arch" / "0.jpg").write_bytes(jpeg(50))
    assert "1 of 8 images are new (first arch/0.jpg)" in refused(root, tmp_path, "image_folder")
    (root / "tower").rename(root / "spire")
    rule = refused(root, tmp_path, "image_folder")
    assert "5 of 8 images are new (first arch/0.jpg); 4 of 8 images are absent (first t" in rule
    shutil.rmtree(prepared_folder(tmp_path))
    assert opened(root, tmp_path, "image_folder").classes == ["arch", "bridge", "spire"]


def test_other_distractors_are_refused_and_absent_ones_too(tmp_path):
    make_oxford(tmp_path / "raw")
    for name, count in (("one", 3), ("two", 4)):
        make_distractors(tmp_path / name, count)
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    (tmp_path / "three" / "jpg" / "0001" / "d1.jpg").write_bytes(jpeg(77))

    def found(distractors):
        folder = str(tmp_path / distractors)
        return opened(tmp_path / "raw", tmp_path, "revisited", distractors=folder)

    def rule(distractors):
        with pytest.raises(UserError) as caught:
            found(distractors)
        assert caught.value.subject == "config.data.distractors"
        assert caught.value.value == str(tmp_path / distractors)
        return caught.value.rule

    assert len(found("one").database) == 9
    assert "revisitop1m.txt has 32 bytes, not 24" in rule("two")
    assert re.search("1 of 3 images .*jpg/0001/d1.jpg", rule("three"))
    assert "existing folder" in rule("absent")
    (tmp_path / "one").rename(tmp_path / "four")
    assert found("four").database.names[-3:] == ["0000/d0", "0001/d1", "0000/d2"]


def test_another_ground_truth_is_refused(tmp_path):
    root = tmp_path / "raw"
    make_oxford(root)
    opened(root, tmp_path, "revisited_oxford")
    edit(root / "gnd_roxford5k.json", lambda data: data.replace(b"112", b"111", 1))
    rule = refused(root, tmp_path, "revisited_oxford")
    assert "gnd_roxford5k.json has other content" in rule


@pytest.mark.parametrize("tars", [0, 2])
def test_archives_and_unpacked_images_are_compared(tmp_path, tars):
    root = tmp_path / "raw"
    make_gldv2(root, tars)
    before = opened(root, tmp_path, "gldv2").train.names
    copied = tmp_path / "copy"
    shutil.copytree(root, copied, copy_function=shutil.copy)  # other times
    assert opened(copied, tmp_path, "gldv2").train.names == before
    edit(copied / "index.csv", lambda data: data + b"\n")  # not of this part
    assert opened(copied, tmp_path, "gldv2").train.names == before
    if tars:
        edit(copied / "train" / "images_001.tar", lambda data: data[:-1] + b"x")
        assert "train/images_001.tar has other content" in refused(copied, tmp_path, "gldv2")
        write_tar(root / "train" / "images_002.tar", {})
        assert "train/images_002.tar is new" in refused(root, tmp_path, "gldv2")
        (root / "train" / "images_001.tar").unlink()
        rule = refused(root, tmp_path, "gldv2")
        assert "train/images_001.tar is absent; train/images_002.tar is new" in rule
    else:
        edit(image_path(copied, 4), lambda data: data[:-3] + b"\0" + data[-2:])
        assert "1 of 16 images" in refused(copied, tmp_path, "gldv2")
        edit(root / "train.csv", lambda data: data.replace(b",7\n", b",9\n"))
        assert "train.csv has other content" in refused(root, tmp_path, "gldv2")


@pytest.mark.parametrize("replaced", [0, 7, 15])
def test_of_many_images_with_other_times_some_are_read(
    tmp_path, root, monkeypatch, caplog, replaced
):
    """As of a copy of millions; the draw is even, so that a change of all of them shows."""
    opened(root, tmp_path)
    lines = (prepared_folder(tmp_path) / "source.csv").read_text().splitlines()[1:]
    paths = [root / line.split(",")[0] for line in lines]
    monkeypatch.setattr(manifest, "CONTENTS", 4)
    monkeypatch.setattr(manifest, "_ROWS", 3)  # so that there are several blocks
    monkeypatch.setattr(manifest, "_READERS", 2)
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    caplog.set_level("INFO", "delg_jax")
    assert len(opened(root, tmp_path).train) == 13
    assert re.search("16 images .*; 4 of them", caplog.text)
    # One of another size is found wherever it is
    whole = paths[replaced].read_bytes()
    edit(paths[replaced], lambda data: data + b"more")
    name = paths[replaced].relative_to(root).as_posix()
    assert re.search(f"1 of 16 images .*{name}", refused(root, tmp_path))
    edit(paths[replaced], lambda data: whole)
    for path in paths:
        edit(path, lambda data: data[:-3] + b"\0" + data[-2:])
    assert "4 of 16 images" in refused(root, tmp_path)


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
    with pytest.raises(BadImageError):
        inside(tmp_path, name)


def test_odd_bytes_of_a_name_are_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"odd")
    assert inside(tmp_path, "caf\\xe9").read_bytes() == b"odd"
