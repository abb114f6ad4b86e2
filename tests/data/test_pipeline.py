import dataclasses
import io
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from delg_jax.data import folder, images, pipeline
from delg_jax.data.images import EncodedImage
from delg_jax.data.pipeline import CropSettings, random_crop, squash
from delg_jax.data.skips import SkipLog
from delg_jax.errors import UserError
from tests.photographs import draw, make_folder, truncate
from tests.tiny import training_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four classes, six images each to train on and three to validate."""
    return make_folder(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def data(root):
    return training_config(root).data.copy_and_resolve_references().unlock()


@pytest.fixture
def train(data):
    return folder.training(data).train


def training_batches(source, data, *arguments, **named):
    settings = pipeline.InputSettings.of(data)
    return pipeline.training_batches(source, settings, *arguments, **named)


def validation_batches(source, data, *arguments, **named):
    settings = pipeline.InputSettings.of(data)
    return pipeline.validation_batches(source, settings, *arguments, **named)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def squashed_image(source, index, size):
    settings = pipeline.CropSettings(size, (1.0, 1.0), (1.0, 1.0), flip=False)
    return pipeline.squash(images.EncodedImage(source.read(index)), settings)


def numbered(source, data):
    """Whole images instead of crops, so that a batch tells which images it holds."""
    data.crop_area, data.crop_aspect = (1.0, 1.0), (1e-9, 1e-9)  # no such box fits
    squashed = [squashed_image(source, i, data.image_size) for i in range(len(source))]

    def numbers(batch):
        return [
            next(i for i, image in enumerate(squashed) if np.array_equal(image, row))
            for row in batch["image"]
        ]

    return numbers


def test_a_batch_has_images_and_labels(train, data):
    (batch,) = take(training_batches(train, data, 8, seed=0), 1)
    assert batch["image"].shape == (8, 64, 64, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == (8,)
    assert batch["label"].dtype == np.int32


def test_the_same_seed_gives_the_same_batches(train, data):
    one, other, third = (take(training_batches(train, data, 5, seed), 7) for seed in (3, 3, 4))
    assert_equal(one, other)
    assert any((a["image"] != b["image"]).any() for a, b in zip(one, third, strict=True))


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_each_time(train, data):
    data.workers = 2
    one, other = (training_batches(train, data, 5, 3) for _ in range(2))
    assert_equal(take(one, 3), take(other, 3))
    following = take(other, 5)
    for data.workers in (0, 1, 3):
        assert_equal(take(training_batches(train, data, 5, 3, start=3), 5), following)


def test_each_epoch_holds_every_image_once_in_another_order(train, data):
    numbers = numbered(train, data)
    batches = take(training_batches(train, data, 6, seed=0), 8)
    seen = [number for batch in batches for number in numbers(batch)]
    first, second = seen[:24], seen[24:]
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert first != sorted(first)
    for batch in batches:
        assert batch["label"].tolist() == [train.labels[i] for i in numbers(batch)]


def test_another_pass_cuts_other_crops(train, data):
    data.crop_area = (0.1, 0.3)
    first, second = take(training_batches(train, data, 24, seed=0), 2)
    a, b = (batch["image"][np.argsort(batch["label"])] for batch in (first, second))
    assert (a != b).any()


@pytest.mark.parametrize("start", [0, 1, 4, 11])
def test_batches_start_at_any_number(train, data, start):
    expected = take(training_batches(train, data, 5, seed=1), start + 6)[start:]
    assert_equal(take(training_batches(train, data, 5, seed=1, start=start), 6), expected)


def test_batches_far_into_a_long_run_are_read_at_once(train, data):
    far = training_batches(train, data, 5, seed=1, start=10**9)
    assert next(far)["image"].shape == (5, 64, 64, 3)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_that_one_would_get(train, data, processes):
    whole = take(training_batches(train, data, 8, seed=2), 5)
    shards = [
        take(training_batches(train, data, 8, seed=2, shard=(number, processes)), 5)
        for number in range(processes)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shards, strict=True)
    ]
    assert_equal(joined, whole)


@pytest.mark.parametrize("number", [0, 1])
def test_the_number_of_a_batch_is_that_of_any_number_of_processes(train, data, number):
    expected = take(training_batches(train, data, 8, seed=2, shard=(number, 2)), 5)[3:]
    resumed = training_batches(train, data, 8, seed=2, shard=(number, 2), start=3)
    assert_equal(take(resumed, 2), expected)


def test_a_batch_that_processes_cannot_share_is_refused(train, data):
    with pytest.raises(ValueError, match=r"batch_size \(=8\) .* 3"):
        training_batches(train, data, 8, seed=2, shard=(0, 3))


def test_bad_images_are_replaced_by_the_next_and_listed(tmp_path, data):
    data.root = str(make_folder(tmp_path / "photographs"))
    source = folder.training(data).train
    good = take(training_batches(source, data, 12, seed=0), 2)
    truncate(source.root / "class_0" / "3.jpg")
    (source.root / "class_2" / "1.jpg").unlink()
    numbers = numbered_but(source, data, {3, 13})
    log = SkipLog(tmp_path / "skipped.csv")
    batches = take(training_batches(source, data, 12, seed=0, skip_log=log), 2)
    seen = [number for batch in batches for number in numbers(batch)]
    assert sorted(seen) == sorted([i for i in range(24) if i not in (3, 13)] + [4, 14])
    assert log.read().keys() == {"class_0/3.jpg", "class_2/1.jpg"}
    labels, before = (np.concatenate([b["label"] for b in bs]) for bs in (batches, good))
    np.testing.assert_array_equal(labels, before)  # neighbours here are of one class


def test_a_data_set_without_a_good_image_is_an_error(tmp_path, data):
    data.root = str(make_folder(tmp_path / "photographs", classes=1))
    source = folder.training(data).train
    data.min_side = 1000
    log = SkipLog(tmp_path / "skipped.csv")
    with pytest.raises(images.BadImageError, match="no image"):
        next(training_batches(source, data, 4, seed=0, skip_log=log))
    assert len(log.read()) == len(source)


def numbered_but(source, data, bad):
    """As `numbered`, with the numbers of the images that can be read."""
    good = [i for i in range(len(source)) if i not in bad]

    class Good:
        def __len__(self):
            return len(good)

        def read(self, index):
            return source.read(good[index])

    inner = numbered(Good(), data)
    return lambda batch: [good[i] for i in inner(batch)]


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 20])
def test_validation_takes_each_image_once_in_order(data, batch_size):
    source = folder.training(data).validation
    batches = list(validation_batches(source, data, batch_size))
    assert {batch["image"].shape for batch in batches} == {(batch_size, 64, 64, 3)}
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.tolist() == [True] * 12 + [False] * (-12 % batch_size)
    labels = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(labels[valid], source.labels)
    pictures = np.concatenate([batch["image"] for batch in batches])
    for number in range(12):
        expected = squashed_image(source, number, 64)
        np.testing.assert_array_equal(pictures[number], expected)
    assert not pictures[12:].any()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 9])
def test_workers_validate_the_same_images(data, workers, monkeypatch):
    monkeypatch.setattr(pipeline, "_BATCHES_OF_WORKER", 1)
    source = folder.training(data).validation
    expected = list(validation_batches(source, data, 5))
    data.workers = workers
    assert_equal(list(validation_batches(source, data, 5)), expected)


def test_without_validation_images_there_are_no_batches(data, train):
    nothing = dataclasses.replace(train, names=[], labels=train.labels[:0])
    assert list(validation_batches(nothing, data, 8, shard=(1, 2))) == []


def test_bad_validation_images_are_left_out_and_listed(tmp_path, data):
    data.root = str(make_folder(tmp_path / "photographs"))
    source = folder.training(data).validation
    truncate(source.root / "class_1" / "0.jpg")
    log = SkipLog(tmp_path / "skipped.csv")
    batches = list(validation_batches(source, data, 4, log))
    labels = np.concatenate([batch["label"][batch["valid"]] for batch in batches])
    assert labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert list(log.read()) == ["class_1/0.jpg"]


def test_small_images_are_bad(tmp_path, data, train):
    data.min_side = 81
    log = SkipLog(tmp_path / "skipped.csv")
    batches = list(validation_batches(train, data, 4, log))
    assert not any(batch["valid"].any() for batch in batches)
    assert len(log.read()) == 24


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_validation_in_as_many_batches(data, processes):
    source = folder.training(data).validation
    whole = list(validation_batches(source, data, 8))
    shards = [
        list(validation_batches(source, data, 8, shard=(number, processes)))
        for number in range(processes)
    ]
    assert {len(shard) for shard in shards} == {len(whole)}
    for batch, parts in zip(whole, zip(*shards, strict=True), strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 0),
        ("crop_area", (0.5,)),
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.5, 1.5)),
        ("crop_area", (0.8, 0.2)),
        ("crop_area", ("a", "b")),
        ("crop_aspect", (0.0, 1.0)),
        ("crop_aspect", (2.0, 1.0)),
    ],
)
def test_ranges_that_cannot_be_are_refused(train, data, field, value):
    data[field] = value
    with pytest.raises(UserError, match=rf"config\.data\.{field} = .*"):
        training_batches(train, data, 4, seed=0)


def test_the_state_of_the_input_is_plain_json(train, data):
    batches = training_batches(train, data, 4, seed=0)
    take(batches, 2)
    state = json.loads(json.dumps(batches.get_state()))
    expected = take(batches, 1)
    batches.set_state(state)
    assert_equal(take(batches, 1), expected)


PROGRAM = """
import glob, os, signal, time
from absl import flags
from configs import default
from delg_jax.data import folder, pipeline

def children():
    paths = glob.glob("/proc/self/task/*/children")
    return [int(child) for path in paths for child in open(path).read().split()]

if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    data = default.get_config().data
    data.root, data.image_size, data.workers = ROOT, 32, 1
    settings = pipeline.InputSettings.of(data)
    batches = pipeline.training_batches(folder.training(data).train, settings, 4, seed=0)
"""


def run(tmp_path, then):
    """Output of a program that makes batches by a worker, and then something else."""
    make_folder(tmp_path)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("ROOT", repr(str(tmp_path))) + then)
    root = pathlib.Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    then = """
    next(batches)
    print(*children(), flush=True)
    os.kill(os.getpid(), 9)
"""
    stopped = run(tmp_path, then)
    children = [int(child) for child in stopped.stdout.split()]
    assert children
    deadline = time.monotonic() + 30
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline, f"{children} outlive their parent"
        time.sleep(0.5)


def is_running(process: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_signal_to_all_does_not_end_workers_that_are_starting(tmp_path):
    then = """
    first = None  # moment at which there was a worker beside multiprocessing's own process
    while first is None or time.monotonic() < first + 1:
        if first is None and len(children()) > 1:
            first = time.monotonic()
        for child in children():
            os.kill(child, signal.SIGTERM)
        time.sleep(0.01)
    print(next(batches)["label"].shape, next(batches)["label"].shape)
"""
    found = run(tmp_path, then)
    assert found.stdout == "(4,) (4,)\n", found.stderr


class Gated:
    """Numbers that come once the gate is open."""

    def __init__(self):
        self.gate, self.numbers, self.closed = threading.Event(), itertools.count(), False

    def __iter__(self):
        return self

    def __next__(self):
        self.gate.wait(30)
        return next(self.numbers)

    def close(self):
        self.closed = True


class Stopped(Exception):
    """Raised by the handler of a signal."""


def test_a_signal_handler_raises_in_the_wait_for_a_batch_and_none_is_lost(monkeypatch):
    """Raised in Grain's code, it left a queue behind that waited forever when it was closed."""

    def stop(*_):
        raise Stopped

    source = Gated()
    batches = pipeline._FromWorkers(source)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Stopped):
            next(batches)
    finally:
        signal.signal(signal.SIGALRM, before)
    monkeypatch.setattr(pipeline, "_LAST_BATCH_SECONDS", 0.01)
    batches.close()  # not beside a batch that is being fetched
    assert not source.closed
    source.gate.set()
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    batches.close()
    assert source.closed
    assert list(batches) == []


def test_the_thread_ends_with_the_batches():
    """Each validation has one."""

    def alive():
        return {thread.name for thread in threading.enumerate()}

    before = alive()
    batches = pipeline._FromWorkers(iter([1, 2]))
    assert list(batches) == [1, 2]
    assert list(batches) == []
    deadline = time.monotonic() + 30
    while alive() - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


SETTINGS = CropSettings(size=32, area=(0.08, 1.0), aspect=(0.75, 4 / 3), flip=False)


def encoded(image, file_format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format)
    return EncodedImage(buffer.getvalue())


@pytest.fixture
def boxes(monkeypatch):
    """The boxes that are cut out, as they are drawn."""
    drawn = []
    resize = pipeline._resize

    def note(image, box, settings):
        drawn.append(box)
        return resize(image, box, settings)

    monkeypatch.setattr(pipeline, "_resize", note)
    return drawn


@pytest.mark.parametrize("size", [(80, 100), (300, 40)])
def test_boxes_keep_to_their_ranges(rng, boxes, size):
    image = draw(0, *size)
    for _ in range(300):
        assert random_crop(encoded(image), SETTINGS, rng).shape == (32, 32, 3)
    whole = (0, 0, size[1], size[0])
    drawn = np.array([box for box in boxes if box != whole])
    left, top, right, bottom = drawn.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= size[1]).all()
    assert (bottom <= size[0]).all()
    width, height = right - left, bottom - top
    slack = 1 / np.minimum(width, height)  # sides are rounded to pixels
    area = width * height / (size[0] * size[1])
    assert (area > 0.08 * (1 - slack)).all()
    assert (width / height > 0.75 * (1 - slack)).all()
    assert (width / height < 4 / 3 * (1 + slack)).all()
    assert area.min() < 0.15
    assert len(drawn) > 100


def test_areas_are_uniform(rng, boxes):
    settings = CropSettings(8, (0.2, 0.6), (1.0, 1.0), flip=False)
    image = encoded(draw(0, 100, 100))
    for _ in range(1000):
        random_crop(image, settings, rng)
    areas = np.array([(right - left) ** 2 / 1e4 for left, _, right, _ in boxes])
    counts, _ = np.histogram(areas, bins=4, range=(0.2, 0.6))
    assert counts.min() > 200


def test_wide_boxes_are_as_likely_as_tall_ones(rng, boxes):
    settings = CropSettings(8, (0.1, 0.2), (0.5, 2.0), flip=False)
    image = encoded(draw(0, 100, 100))
    for _ in range(1000):
        random_crop(image, settings, rng)
    left, top, right, bottom = np.array(boxes).T
    aspects = np.log((right - left) / (bottom - top))
    assert abs(aspects.mean()) < 0.06  # a uniform aspect has 0.155
    counts, _ = np.histogram(aspects, bins=4, range=(-np.log(2), np.log(2)))
    assert counts.min() > 200


def test_the_whole_image_where_no_box_fits(rng):
    line = draw(0, 200, 200)[:, :5]  # no box of half its area has an aspect near 1
    settings = CropSettings(32, (0.5, 1.0), (0.9, 1.1), flip=False)
    np.testing.assert_array_equal(
        random_crop(encoded(line), settings, rng), squash(encoded(line), settings)
    )


def test_the_whole_area_undistorted_is_the_image(rng):
    image = draw(0, 32, 32)
    settings = CropSettings(32, (1.0, 1.0), (1.0, 1.0), flip=False)
    np.testing.assert_array_equal(random_crop(encoded(image), settings, rng), image)


def test_half_of_the_images_are_mirrored(rng):
    image = draw(0, 32, 32)
    settings = CropSettings(32, (1.0, 1.0), (1.0, 1.0), flip=True)
    mirrored = 0
    for _ in range(200):
        found = random_crop(encoded(image), settings, rng)
        mirrored += np.array_equal(found, image[:, ::-1])
        assert np.array_equal(found, image) or np.array_equal(found, image[:, ::-1])
    assert 70 < mirrored < 130


def test_the_same_generator_cuts_the_same():
    image = draw(0)
    one, other = (random_crop(encoded(image), SETTINGS, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_squash_takes_the_whole_image():
    image = draw(0, 90, 60)
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(squash(encoded(image), SETTINGS), np.asarray(expected))


def test_squash_leaves_a_fitting_square_alone():
    image = draw(0, 32, 32)
    np.testing.assert_array_equal(squash(encoded(image), SETTINGS), image)


@pytest.mark.parametrize(("side", "reduction"), [(63, 1), (64, 2), (127, 2), (128, 4), (9999, 8)])
def test_a_reduced_box_has_pixels_enough(side, reduction):
    assert pipeline._reduction((5, 7, 5 + side, 7 + 2 * side), 32) == reduction
    assert pipeline._reduction((5, 7, 5 + 2 * side, 7 + side), 32) == reduction


def test_a_reduced_crop_shows_the_same(rng):
    """Odd sizes, where a reduced JPEG is a little larger than its share."""
    image = draw(0, 1001, 777)
    reduced = dataclasses.replace(SETTINGS, size=64, area=(0.3, 0.9), reduced=True)
    plain = dataclasses.replace(reduced, reduced=False)
    for seed in range(20):
        small, whole = (
            random_crop(encoded(image, "JPEG"), s, np.random.default_rng(seed)).astype(int)
            for s in (reduced, plain)
        )
        assert np.abs(small - whole).mean() < 5.0
    assert (small != whole).any()
