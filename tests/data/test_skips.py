import errno
import multiprocessing
import threading

import pytest

from delg_jax.data.skips import SkipLog, report
from delg_jax.errors import UserError
from tests.folders import read_only


def add_many(log, worker):
    for number in range(200):
        log.add(f"worker{worker}/{number}", f'reason, "{number}"')


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_rows_of_several_writers_stay_whole(tmp_path, kind):
    log = SkipLog(tmp_path / "skipped.csv")
    context = multiprocessing.get_context("spawn")
    start = threading.Thread if kind == "thread" else context.Process
    writers = [start(target=add_many, args=(log, worker)) for worker in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    expected = {f"worker{w}/{n}": f'reason, "{n}"' for w in range(2) for n in range(200)}
    assert log.read() == expected


def test_an_image_that_is_met_twice_counts_once(tmp_path):
    log = SkipLog(tmp_path / "skipped.csv")
    assert log.read() == {}
    log.add("a.jpg", "first")
    log.add("a.jpg", "second")
    log.add("b,c\n.jpg", "odd name")
    assert log.read() == {"a.jpg": "second", "b,c\n.jpg": "odd name"}


def test_a_report_lists_what_was_skipped(tmp_path):
    report(tmp_path, {"b.jpg": "truncated", "a.jpg": "no, image"}, limit=2)
    rows = (tmp_path / "skipped.csv").read_text().splitlines()
    assert rows == ["image,reason", 'a.jpg,"no, image"', "b.jpg,truncated"]


def test_too_many_are_an_error_after_the_list_is_written(tmp_path):
    names = r"config\.data\.max_skipped = 1: 2 .* a \(x\).*skipped\.csv"
    with pytest.raises(UserError, match=names):
        report(tmp_path, {"b": "y", "a": "x"}, limit=1)
    assert (tmp_path / "skipped.csv").is_file()


def test_odd_bytes_in_a_reason_are_escaped(tmp_path):
    log = SkipLog(tmp_path / "log.csv")
    log.add("caf\\xe9.jpg", "cannot open caf\udce9.jpg")
    assert log.read() == {"caf\\xe9.jpg": "cannot open caf\\udce9.jpg"}
    report(tmp_path, {"a": "caf\udce9", "two\u2028lines": "x"}, limit=2)
    text = (tmp_path / "skipped.csv").read_text(encoding="utf-8")
    assert text == "image,reason\na,caf\\udce9\ntwo\u2028lines,x\n"


def test_nothing_is_removed_where_nothing_is(tmp_path, monkeypatch):
    def unlink(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", unlink)
    report(tmp_path, {}, limit=0)


def test_nothing_skipped_removes_an_older_list(tmp_path):
    report(tmp_path, {"a": "x"}, limit=1)
    report(tmp_path, {}, limit=0)
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_there_is_not_written_again(tmp_path):
    for skipped in ({"a": "x"}, {}):
        report(tmp_path, skipped, limit=1)
        with read_only(tmp_path):
            report(tmp_path, skipped, limit=1)


def test_what_is_skipped_in_a_read_only_place_is_said(tmp_path, caplog):
    report(tmp_path, {"a": "x"}, limit=1)
    with read_only(tmp_path):
        report(tmp_path, {"b": "y"}, limit=1)
        report(tmp_path, {}, limit=1)
        with pytest.raises(UserError, match=r" 2 .* b \(y\)$"):
            report(tmp_path, {"b": "y", "c": "z"}, limit=1)
    assert "b (y)" in caplog.text


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("delg_jax.workdir.write_text", full)
    with pytest.raises(OSError, match="full"):
        report(tmp_path, {"a": "x"}, limit=1)
