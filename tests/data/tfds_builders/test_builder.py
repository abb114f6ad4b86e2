"""What is prepared is used only with the files that it was prepared of, wherever they lie now."""

import concurrent.futures
import errno
import json
import os
import pathlib
import shutil
import time

import pytest
import tensorflow_datasets as tfds

from delg_jax import locks
from delg_jax.data.synthetic.datasets import SyntheticConfig, SyntheticLandmarks, prepare
from delg_jax.data.tfds_builders import GoogleLandmarksV1
from delg_jax.data.tfds_builders import builder as builders
from delg_jax.data.tfds_builders.builder import prepare_once
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import (
    edit,
    image_id,
    image_path,
    jpeg,
    make_gldv1,
    opened,
    place,
    prepared_folder,
    refused,
)
from tests.flips import flips
from tests.holding import held


@pytest.fixture
def root(tmp_path):
    make_gldv1(tmp_path / "raw")
    return tmp_path / "raw"


def no_locks(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_second_job_waits_for_the_one_that_prepares(tmp_path, root, monkeypatch, caplog):
    opened(root, tmp_path)
    folder = prepared_folder(tmp_path)
    shutil.move(folder, tmp_path / "made by the other job")
    leftover = folder.with_name(f"incomplete.ABCDEF_{folder.name}")
    leftover.mkdir()
    monkeypatch.setattr(locks, "_LINE_SECONDS", 0.2)
    caplog.clear()
    caplog.set_level("INFO", "delg_jax")

    def finish(holder):
        while "waiting for another job that makes" not in caplog.text:
            time.sleep(0.05)
        assert leftover.exists()  # it may be the other job's
        shutil.move(tmp_path / "made by the other job", folder)
        holder.kill()

    with held(folder) as holder, concurrent.futures.ThreadPoolExecutor() as pool:
        finished = pool.submit(finish, holder)
        assert len(opened(root, tmp_path).train) == 13
        finished.result()
    assert not leftover.exists()
    assert "preparing" not in caplog.text


def test_what_a_killed_preparation_left_is_deleted(tmp_path, root, monkeypatch):
    opened(root, tmp_path)
    folder = prepared_folder(tmp_path)
    leftover, other = folder.with_name("incomplete.ABCDEF_1.0.0"), folder.with_name("notes_1.0.0")
    shutil.move(folder, leftover)
    other.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", no_locks)
        opened(root, tmp_path)
    assert leftover.exists()  # without locks, it may be another job's
    shutil.rmtree(folder)
    opened(root, tmp_path)
    assert not leftover.exists()
    assert other.exists()


def test_a_folder_that_is_named_and_absent_is_refused(tmp_path, root):
    assert "leave it empty" not in refused(tmp_path / "absent", tmp_path)
    opened(root, tmp_path)
    folder = prepared_folder(tmp_path)
    assert f"leave it empty to use {folder}" in refused(tmp_path / "absent", tmp_path)


def test_without_a_root_the_recorded_one_is_logged(tmp_path, root, caplog):
    before = opened(root, tmp_path).train
    root.rename(tmp_path / "gone")
    caplog.set_level("INFO", "delg_jax")
    assert opened("", tmp_path).train.read(3) == before.read(3)
    assert f"{prepared_folder(tmp_path)} was prepared of {root}" in caplog.text


def test_images_that_were_left_out_count_again(tmp_path, root):
    edit(image_path(root, 6), lambda data: b"no image")
    opened(root, tmp_path, max_skipped=1)
    for named in (root, ""):
        names = rf"config\.data\.max_skipped = 0: 1 .*{image_id(6)} \(not an image.*delete"
        with pytest.raises(UserError, match=names):
            opened(named, tmp_path, max_skipped=0)
        assert len(opened(named, tmp_path, max_skipped=1).train) >= 12
    place(root / "train", image_id(6), jpeg(6))
    assert "1 of 16 images" in refused(root, tmp_path, max_skipped=1)


def test_an_absent_image_that_came_is_a_change(tmp_path, root):
    data = image_path(root, 6).read_bytes()
    image_path(root, 6).unlink()
    opened(root, tmp_path, max_skipped=1)
    opened(root, tmp_path, max_skipped=1)
    image_path(root, 6).write_bytes(data)
    assert "1 of 16 images" in refused(root, tmp_path, max_skipped=1)


def test_what_an_earlier_version_prepared_is_used_and_said(tmp_path, root, caplog):
    """It left no manifest, no list of files and no digests."""
    edit(image_path(root, 6), lambda data: b"no image")
    before = opened(root, tmp_path, max_skipped=1).train.names
    folder = prepared_folder(tmp_path)
    for name in ("manifest.json", "source.csv"):
        (folder / name).unlink()
    for split in ("train", "validation"):
        lines = (folder / f"{split}.csv").read_text().splitlines()
        (folder / f"{split}.csv").write_text(
            "".join(line.rpartition(",")[0] + "\n" for line in lines)
        )
    train = opened(root, tmp_path, max_skipped=1).train
    assert train.names == before
    assert set(train.digests) == {""}
    assert caplog.text.count(f"{folder} was prepared by an earlier version") == 1
    with pytest.raises(UserError, match="max_skipped = 0: 1 "):
        opened(root, tmp_path, max_skipped=0)


def test_settings_of_another_default_are_refused(tmp_path, root):
    opened(root, tmp_path)
    path = prepared_folder(tmp_path) / "manifest.json"
    stored = json.loads(path.read_text())
    assert stored["settings"] == {
        **{"max_pixels": 100_000_000, "min_side": 16},
        **{"split_seed": 0, "validation_share": 0.2},
    }
    builder = GoogleLandmarksV1(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    builder.builder_config.min_side = 20
    try:
        with pytest.raises(UserError, match="min_side .*20.* 16"):
            builders.prepare(builder, str(root))
    finally:
        builder.builder_config.min_side = 16


@pytest.mark.parametrize("name", ["relabelling.csv", "train.csv", "source.csv", "manifest.json"])
def test_flipped_bits_beside_the_records_are_found(tmp_path, root, name):
    opened(root, tmp_path)
    path = prepared_folder(tmp_path) / name
    whole = path.read_bytes()
    for place_ in range(len(whole) // 2, len(whole), max(len(whole) // 40, 1)):
        damaged = bytearray(whole)
        damaged[place_] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="prepared data = '"):
            opened(root, tmp_path)
    path.unlink()
    if name != "manifest.json":
        with pytest.raises(UserError, match=rf"prepared data = '.*{name}'"):
            opened(root, tmp_path)


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_flipped_bits_of_records_never_give_another_image(tmp_path, root, count):
    source = opened(root, tmp_path).train
    expected = [source.read(index) for index in range(len(source))]
    (path,) = prepared_folder(tmp_path).glob("*-train.array_record-*")

    def read(source, index):
        try:
            return source.read(index)
        except OSError as error:
            return str(error)

    refused = 0
    for _ in flips(path, count):
        source = opened(root, tmp_path).train
        for index, image in enumerate(expected):
            found = read(source, index)
            assert found == image or found.startswith("its record is damaged")
            refused += found != image
    assert refused  # most of a small file is padding


def test_what_is_prepared_is_read_on_a_mount_that_cannot_be_written(tmp_path, root):
    before = opened(root, tmp_path).train.names
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "tfds").rglob("*")}
    assert opened(root, tmp_path).train.names == before
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "tfds").rglob("*")}


def test_the_slower_of_two_processes_takes_what_the_other_prepared_only_if_it_fits(
    tmp_path, root, monkeypatch
):
    make_gldv1(tmp_path / "other", counts=(5, 3))
    monkeypatch.setattr("fcntl.flock", no_locks)  # with locks, the slower one waits
    builder = GoogleLandmarksV1(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    groups = builder._groups

    def overtaken(source):
        opened(root, tmp_path)
        return groups(source)

    monkeypatch.setattr(builder, "_groups", overtaken)
    with pytest.raises(UserError, match=r"config\.data\.root = .*train\.csv has "):
        builders.prepare(builder, str(tmp_path / "other"))
    assert prepared_folder(tmp_path) == pathlib.Path(builder.data_path)


def test_a_source_that_changes_while_it_is_prepared_shows_later(tmp_path, root, monkeypatch):
    builder = GoogleLandmarksV1(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    groups = builder._groups

    def late(source):
        found = groups(source)
        edit(root / "train.csv", lambda data: data.replace(b",17\n", b",27\n"))
        return found

    monkeypatch.setattr(builder, "_groups", late)
    builders.prepare(builder, str(root))
    assert "train.csv has other content" in refused(root, tmp_path)


def test_the_first_of_two_to_finish_counts(tmp_path, monkeypatch):
    """Another process prepares the same data while this one renders."""
    config = SyntheticConfig(name="tiny_0", size="tiny", seed=0)
    slow = SyntheticLandmarks(config=config, data_dir=str(tmp_path), file_format="array_record")
    render, rendered = slow._generate_examples, {}

    def overtaken(split):
        prepare("tiny", 0, str(tmp_path))
        rendered[split] = list(render(split))
        return rendered[split]

    monkeypatch.setattr(slow, "_generate_examples", overtaken)
    prepare_once(slow)
    for split, info in slow.info.splits.items():
        data = slow.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        images = sorted(example["image"] for example in data)
        assert len(images) == info.num_examples > 0
        assert images == sorted(example["image"] for _, example in rendered[split])
