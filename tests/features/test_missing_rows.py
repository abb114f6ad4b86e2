"""A store is the same whatever interrupts its filling, and however many processes fill it."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from delg_jax import distributed
from delg_jax import workdir as outputs
from delg_jax.cli.main import main
from delg_jax.errors import UserError
from delg_jax.features.storage import chunked_array
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import group_by_chunk, missing_rows
from tests import stores
from tests.folders import contents
from tests.photographs import draw, save
from tests.tiny import command_line, retrieval_config
from tests.training import programs

PICTURES = 300
DEADLINE = 300  # seconds that a program may take to write a chunk


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def rows(rng):
    rows = [stores.features(rng, count) for count in (3, 0, 5, 1, 4, 2, 5, 5)]
    rows[3:6] = ["broken"] * 3  # a chunk without features
    return rows


def interrupt(monkeypatch, number, before):
    """Ends the process before or after its n-th access to the disk; how often it went there."""
    count = 0

    def interrupted(action):
        def act(*arguments):
            nonlocal count
            count += 1
            if count == number and before:
                raise Killed
            result = action(*arguments)
            if count == number:
                raise Killed
            return result

        return act

    monkeypatch.setattr(chunked_array, "_result", interrupted(chunked_array._result))
    monkeypatch.setattr(outputs, "write_json", interrupted(outputs.write_json))
    return lambda: count


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_an_end_at_any_access_to_the_disk_changes_nothing(
    tmp_path, rows, monkeypatch, before, step
):
    def fill_twice(folder):
        """As two calls of `delg extract` do, of which the second has more images."""
        if not (folder / "store.json").is_file() or len(FeatureStore(folder, whole=False)) < 8:
            stores.fill(folder, rows[:5])
        stores.fill(folder, rows)

    monkeypatch.setattr("delg_jax.features.store._PART_BYTES", 64)  # chunks of several parts
    with monkeypatch.context() as patch:
        accesses = interrupt(patch, 0, before)
        fill_twice(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert accesses() > 50
    for number in range(1, accesses() + 1, step):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            interrupt(patch, number, before)
            with pytest.raises(Killed):
                fill_twice(folder)
        fill_twice(folder)
        assert contents(folder) == whole


def test_leftovers_of_killed_writers_are_removed(tmp_path, rows):
    whole = contents(stores.fill(tmp_path / "whole", rows).folder)
    folder = tmp_path / "store"
    FeatureStore.prepare(folder, stores.names(8), Layout(3, max_features=5))
    for left in (".store.json.abc", "names_64/zarr.json.__lock", "names_64/c.0.0.__lock"):
        (folder / left).write_text("half")
    stores.fill(folder, rows)
    assert contents(folder) == whole


def test_processes_share_what_is_missing(tmp_path, rows, monkeypatch):
    layout = Layout(1, max_features=5)
    store = FeatureStore.prepare(tmp_path, stores.names(8), layout)
    store.write(range(2, 3), [rows[2]])
    done = {}
    for number in (1, 2, 0):
        monkeypatch.setattr(distributed, "shard", lambda number=number: (number, 3))
        monkeypatch.setattr(distributed, "is_first", lambda number=number: number == 0)
        # Each looks before any of them writes
        monkeypatch.setattr(
            store, "missing", lambda: [range(i, i + 1) for i in (0, 1, 3, 4, 5, 6, 7)]
        )
        if number == 0:
            monkeypatch.setattr(
                store, "finish", lambda: FeatureStore(tmp_path, whole=False).finish()
            )
        with missing_rows(store, "test", 8) as (runs, advance):
            done[number] = [run.start for run in runs]
            for run in runs:
                store.write(run, [rows[run.start]])
                advance(len(run))
        assert store.is_whole() is (number == 0)
    assert done == {0: [0, 4, 7], 1: [1, 5], 2: [3, 6]}


def test_a_chunk_is_written_by_one_process(tmp_path, rows):
    store = FeatureStore.prepare(tmp_path, stores.names(8), Layout(3, max_features=5))
    store.delete(["image1", "image4"])
    chunks = group_by_chunk(store, store.missing())
    assert chunks == [
        [range(0, 1), range(2, 3)],
        [range(3, 4), range(5, 6)],
        [range(6, 8)],
    ]
    assert group_by_chunk(store, []) == []


def test_nothing_is_done_where_nothing_is_missing(tmp_path, rows):
    store = stores.fill(tmp_path, rows)
    before = contents(tmp_path)
    with missing_rows(store, "test", 3) as (runs, _):
        assert runs == []
    written = contents(tmp_path)
    assert written.pop("skipped.csv").startswith(b"image,reason\nimage3,broken\n")
    assert written == before
    names = "max_skipped = 2: 3 "
    with pytest.raises(UserError, match=names), missing_rows(store, "test", 2):
        pass


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PICTURES):
        save(folder / f"{number:03}.jpg", draw(number, 64, 64))
    return folder


@pytest.fixture(scope="module")
def config(photos):
    config = retrieval_config(photos).copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    return config.lock()


@pytest.fixture(scope="module")
def flags(photos):
    return (f"--images={photos}",)


@pytest.fixture(scope="module")
def undisturbed(config, flags, tmp_path_factory):
    """The folder of the store that one process makes."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    programs.finish(programs.start(config, workdir, 1, flags, "extract"))
    return workdir / "features" / "images"


def wait_for_chunks(folder, count, program):
    """Returns once so many chunks are there, while the program still runs."""
    deadline = time.monotonic() + DEADLINE
    while len(list(folder.glob("state/c.*"))) < count:
        assert program.poll() is None, program.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill(program):
    os.killpg(program.pid, signal.SIGKILL)
    program.communicate()
    assert program.returncode == -signal.SIGKILL


def assert_same_features(found, wanted):
    found, wanted = FeatureStore(found), FeatureStore(wanted)
    assert found.names == wanted.names
    np.testing.assert_allclose(
        found.global_descriptors(), wanted.global_descriptors(), rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(found.sizes(), wanted.sizes())
    for one, other in zip(found.local_features(0), wanted.local_features(0), strict=True):
        np.testing.assert_allclose(
            one.astype(np.float32), other.astype(np.float32), rtol=1e-5, atol=1e-5
        )


@pytest.mark.slow
def test_a_store_whose_job_is_killed_five_times_has_the_same_bytes(
    config, flags, tmp_path, undisturbed
):
    rng = np.random.default_rng(0)
    folder = tmp_path / "run" / "features" / "images"
    for count in rng.integers([1, 15, 30, 50, 70], [10, 25, 45, 65, 85]):
        program = programs.start(config, tmp_path / "run", 1, flags, "extract")
        wait_for_chunks(folder, count, program)
        time.sleep(rng.uniform(0, 0.02))
        kill(program)
        missing = sum(map(len, FeatureStore(folder, whole=False).missing()))
        assert 0 < missing < PICTURES
    programs.finish(programs.start(config, tmp_path / "run", 1, flags, "extract"))
    assert contents(folder) == contents(undisturbed)


@pytest.mark.slow
def test_two_processes_make_the_store_of_one(config, flags, tmp_path, undisturbed):
    outputs = programs.finish(
        *programs.start_processes(config, tmp_path / "run", 2, 1, flags, "extract")
    )
    folder = tmp_path / "run" / "features" / "images"
    assert f"{folder}: {PICTURES} images, 0 skipped" in outputs[0]
    assert "images" not in outputs[1]
    assert contents(folder).keys() == contents(undisturbed).keys()
    assert_same_features(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_job_resumes_after_one_process_was_killed(config, flags, tmp_path, undisturbed, victim):
    folder = tmp_path / "run" / "features" / "images"
    both = programs.start_processes(config, tmp_path / "run", 2, 1, flags, "extract")
    wait_for_chunks(folder, 20, both[victim])
    kill(both[victim])
    assert not FeatureStore(folder, whole=False).is_whole()
    both[1 - victim].kill()  # as whoever started the job does
    both[1 - victim].communicate()
    programs.finish(*programs.start_processes(config, tmp_path / "run", 2, 1, flags, "extract"))
    assert contents(folder).keys() == contents(undisturbed).keys()
    assert_same_features(folder, undisturbed)


@pytest.mark.slow
def test_two_processes_are_refused_together(config, flags, tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path / "run" / "features" / "images")
    other = config.copy_and_resolve_references().unlock()
    other.extract.max_features = 7
    both = programs.start_processes(other, tmp_path / "run", 2, 1, flags, "extract")
    outputs = [program.communicate(timeout=DEADLINE)[0] for program in both]
    assert [program.returncode for program in both] == [2, 2], outputs
    lines = [output.splitlines()[-1] for output in outputs]
    assert "config.extract.max_features: 30 -> 7" in lines[0]
    assert "process 0" in lines[1]


@pytest.mark.slow
def test_of_two_jobs_at_once_the_second_is_refused(config, flags, tmp_path, undisturbed, capsys):
    folder = tmp_path / "run" / "features" / "images"
    first = programs.start(config, tmp_path / "run", 1, flags, "extract")
    wait_for_chunks(folder, 5, first)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it does not end meanwhile
    try:
        second = ["extract", *command_line(config), f"--workdir={tmp_path / 'run'}", *flags]
        assert main(second) == 2
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"delg: feature store = '{folder}': ")
    assert "another job" in err
    programs.finish(first)
    assert contents(folder) == contents(undisturbed)
