import io
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from delg_jax import __version__
from delg_jax.cli import main as program
from delg_jax.cli.main import VERBS, main
from delg_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_lists_every_verb(capsys, argv):
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "usage: delg VERB --config=" in out
    for verb, summary in VERBS.items():
        assert f"  {verb:<10}{summary}" in out
    assert err == ""


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_verb_explains_itself(capsys, verb, flag):
    assert main([verb, flag]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"delg {verb}: {VERBS[verb]}\n\nusage: delg {verb} ")
    described = [line for line in out.splitlines() if line.startswith("  --")]
    assert described == sorted(described)
    assert described
    assert err == ""


def test_help_of_a_verb_is_another_word_order(capsys):
    assert main(["help", "index"]) == 0
    found = capsys.readouterr().out
    main(["index", "--help"])
    assert found == capsys.readouterr().out
    assert "--workdir (required)" in found
    assert "--overwrite\n" in found


@pytest.mark.parametrize("verb", ["train", "extract", "index", "evaluate"])
def test_verbs_of_experiments_share_their_flags(capsys, verb):
    main([verb, "--help"])
    out = capsys.readouterr().out
    for name in ("config", "workdir", "overwrite"):
        assert f"  --{name}" in out


def test_help_wins_over_everything_else(capsys):
    assert main(["train", "--config=absent.py", "--nonsense", "--help"]) == 0
    assert "usage: delg train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "hint"), [("evluate", "did you mean evaluate? "), ("zzz", ""), ("--config=a.py", "")]
)
def test_an_unknown_verb_is_refused_with_a_suggestion(capsys, verb, hint):
    assert main([verb]) == 2
    out, err = capsys.readouterr()
    assert err == f"delg: verb = {verb!r}: {hint}verbs are {', '.join(VERBS)}\n"
    assert out == ""


def fail_with(monkeypatch, error):
    def fail(argv):
        raise error

    monkeypatch.setattr(program, "_dispatch", fail)


def test_a_mistake_is_one_line_whatever_its_text(capsys, monkeypatch):
    fail_with(monkeypatch, UserError("file", "a\nb", "must be\r\nwhole\nand sound"))
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "delg: file = 'a\\nb': must be whole and sound\n"


def test_an_interrupted_command_says_how_to_resume(capsys, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["train"]) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_an_internal_error_is_not_hidden(monkeypatch):
    fail_with(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["train"])


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize"), AssertionError()])
def test_a_platform_that_is_not_there_is_a_mistake(capsys, monkeypatch, error):
    def devices():
        raise error

    fail_with(monkeypatch, error)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    assert main(["train"]) == 2
    assert capsys.readouterr().err.startswith("delg: JAX_PLATFORMS = 'cuda': ")
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(type(error)):
        main(["train"])


def test_a_current_folder_that_was_deleted_is_a_mistake(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(["train"]) == 2
    assert "current folder" in capsys.readouterr().err


def test_output_that_is_not_utf8_holds_any_text(monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), "ascii") for name in ("stdout", "stderr")}

    def speak(argv):
        sys.stdout.write("é\u2028\udce9.jpg\n")
        raise UserError("file", "x", "must not be é\udce9")

    monkeypatch.setattr(program, "_dispatch", speak)
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main(["train"]) == 2
    for stream in streams.values():
        stream.flush()
    assert streams["stdout"].buffer.getvalue() == b"\\xe9\\u2028\\udce9.jpg\n"
    assert streams["stderr"].buffer.getvalue() == b"delg: file = 'x': must not be \\xe9\\udce9\n"


def test_names_in_logs_and_errors_change_nothing_in_a_terminal(capsys, monkeypatch):
    def speak(argv):
        program._set_up_logging()
        logging.getLogger("delg_jax.data").warning("skipped %s", "a\x1b[2J\nb.jpg")
        raise UserError("file", "x", "must not be \x1b]0;title\x07")

    log = logging.getLogger("delg_jax")
    before = log.handlers, log.propagate, log.level
    monkeypatch.setattr(program, "_dispatch", speak)
    try:
        assert main(["train"]) == 2
    finally:
        log.handlers, log.propagate, log.level = before
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(r" skipped a\x1b[2J\nb.jpg")
    assert lines[1] == r"delg: file = 'x': must not be \x1b]0;title\x07"


def test_the_module_is_the_program(tmp_path):
    command = [sys.executable, "-m", "delg_jax"]
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("delg: image retrieval")
    failed = subprocess.run([*command, "nonsense"], cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("delg: verb = 'nonsense': ")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("--help | true", 141, ""),
        ("--help >&-", 0, ""),
        ("--help >/dev/full", 2, "delg: disk = '': No space left"),
        ("nonsense 2>&-", 2, ""),
        ("nonsense 2>/dev/full", 2, ""),
        ("--help <&- >&- 2>&-", 0, ""),
    ],
)
def test_a_stream_that_takes_nothing_is_no_traceback(command, status, said):
    shell = shutil.which("bash")
    if shell is None or not os.path.exists("/dev/full"):
        pytest.skip("needs bash and /dev/full")
    # `true` ends first: what is printed then fails as a rule, and is complete otherwise
    words = command.replace("| true", "| (exec <&-; true)")
    line = f"{sys.executable} -m delg_jax {words}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run([shell, "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in {status, 0 if "|" in command else status}
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == bool(said)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_may_go_unread_or_nowhere(verb):
    command = [sys.executable, "-m", "delg_jax", verb, "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    unread = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (unread.returncode, unread.stderr) == (141, "")
    closed = subprocess.run(
        ["sh", "-c", f"{' '.join(command)} >&-"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_help_needs_no_network_library():
    others = (verb for verb in VERBS if verb != "bench")  # lists its cases, which are programs
    helps = "; ".join(f"main(['{verb}', '-h'])" for verb in others)
    script = f"import sys; from delg_jax.cli.main import main; main(['--help']); {helps}"
    check = "; print(sorted({'jax', 'flax', 'tensorflow', 'torch'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script + check], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
