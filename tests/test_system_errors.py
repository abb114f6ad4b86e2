import errno
import logging
import os
import types

import pytest

from delg_jax import system_errors
from delg_jax.cli import main as program
from delg_jax.errors import UserError


def wrapped(error):
    """As libraries raise it."""
    try:
        try:
            raise error
        except type(error) as inner:
            raise RuntimeError("the save failed") from inner
    except RuntimeError as outer:
        return outer


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/w/features/store.json")
TENSORSTORE = ValueError(
    'RESOURCE_EXHAUSTED: Error writing "state.0.trace": Failed writing: "/w/checkpoints/3/d/9c": '
    "Failed to write 247045 bytes to file 15: No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FULL, "disk = '/w/features/store.json': No space left on device; "),
        (wrapped(FULL), "disk = '/w/features/store.json': No space left on device; "),
        (TENSORSTORE, "disk = '/w/checkpoints/3/d/9c': No space left on device; "),
        (OSError(errno.EROFS, "Read-only file system", "/w/a"), "disk = '/w/a': Read-only file"),
        (PermissionError(errno.EACCES, "Permission denied", "/w/a"), "file = '/w/a': Permission"),
        (
            RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search"),
            "process = 'input worker': ",
        ),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/w/a"), "file = '/w/a': Stale file"),
        (OSError(errno.ENOTEMPTY, "Directory not empty", "/w"), "folder = '/w': Directory not"),
        (MemoryError(), "memory = '': Cannot allocate memory; "),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), "memory = ''"),
    ],
)
def test_a_shortage_is_named_with_what_to_do(error, line):
    assert str(system_errors.explain(error)).startswith(line)


@pytest.mark.parametrize(
    "error", [ValueError("shapes differ"), FileNotFoundError(errno.ENOENT, "No such file", "/w/a")]
)
def test_a_programming_error_is_not_a_user_error(error):
    assert system_errors.explain(wrapped(error)) is None


def test_the_program_says_it_in_one_line(monkeypatch, capsys):
    def fail(_):
        raise wrapped(FULL)

    monkeypatch.setattr(program, "_dispatch", fail)
    assert program.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("delg: disk = '/w/features/store.json': No space")


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail(_):
        raise wrapped(ValueError("shapes differ"))

    monkeypatch.setattr(program, "_dispatch", fail)
    with pytest.raises(RuntimeError, match="the save failed"):
        program.main(["train"])


@pytest.mark.parametrize(("error", "said"), [(FULL, []), (ValueError("shapes"), ["failed"])])
def test_errors_of_the_machine_are_not_logged_by_libraries(error, said, caplog):
    log = logging.getLogger("a library")
    log.addFilter(system_errors.is_other)
    log.error("failed", exc_info=wrapped(error))
    log.removeFilter(system_errors.is_other)
    assert caplog.messages == said
    log.error("without an exception")
    assert caplog.messages[-1] == "without an exception"


def test_writes_that_outlive_a_failed_save_say_nothing():
    heard = []
    hook = system_errors.without_late_writers(heard.append)
    hook(types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
    assert heard == []
    other = types.SimpleNamespace(exc_value=RuntimeError("the save failed"))
    hook(other)
    assert heard == [other]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
    ],
)
def test_a_shortage_of_threads_is_named(error):
    assert str(system_errors.explain(error)).startswith("threads = ''")


def test_readers_tell_shortages_from_damage():
    for error in (MemoryError(), OSError(errno.EMFILE, os.strerror(errno.EMFILE))):
        assert system_errors.is_shortage(error)
        with pytest.raises(UserError, match="memory|open files"):
            system_errors.reraise(error)
    for error in (ValueError("no magic"), OSError(errno.ENOENT, "absent"), EOFError()):
        assert not system_errors.is_shortage(error)
        system_errors.reraise(error)
