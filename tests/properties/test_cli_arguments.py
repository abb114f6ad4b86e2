import contextlib
import importlib
import io
from pathlib import Path

import pytest
from hypothesis import strategies as st

from configs import default
from delg_jax import configuration
from delg_jax.cli.main import VERBS, main
from tests.properties.cases import cases, hold

_CONFIG = str(Path(default.__file__).resolve())
_STUBBED = sorted(set(VERBS) - {"verify"})
_FIELDS = sorted(configuration.flatten(default.get_config()))
_NAMES = st.one_of(
    st.sampled_from(_FIELDS),
    st.sampled_from(
        ("", ".", "seed.x", "train", "train.", "train..steps", "eval.kappas[0]", "zzz")
    ),
    st.text("aetrin._[]'\"0", max_size=9),
)
_VALUES = st.one_of(
    st.sampled_from(("", "0", "1", "-1", "1.5", "nan", "inf", "1e999", "True", "none", "None")),
    st.sampled_from(("(1,2)", "('a',)", "[", "(", "{}", "{'a': 1}", "9" * 30, "exact", "()", "\n")),
    st.text(max_size=8),
)
_OVERRIDES = st.builds("--config.{}={}".format, _NAMES, _VALUES)
_FLAGS = (
    *(
        "workdir",
        "overwrite",
        "nooverwrite",
        "image",
        "method",
        "top",
        "output",
        "format",
        "canvas",
    ),
    *("sweep", "draws", "seeds", "repair", "size", "repeats", "coordinator", "num_processes"),
    *("box", "serve", "port", "host", "index", "flagfile", "undefok", "config", "help", "wrkdir"),
)
_FLAG = st.builds("--{}={}".format, st.sampled_from(_FLAGS), _VALUES)
_BARE = st.builds("{}{}".format, st.sampled_from(("--", "-", "")), st.sampled_from(_FLAGS))
_ODD = st.sampled_from(
    ("--", "-", "", "=", "--=", "--=1", "--config.", "--config", "a b", "\0", "é")
)
_PATHS = st.sampled_from(
    (_CONFIG, f"{_CONFIG}:", f"{_CONFIG}:zzz", "absent.py", "", "/", "setup.cfg")
)
_VERB = st.one_of(st.sampled_from(sorted(VERBS)), st.sampled_from(("", "trian", "--version", "-h")))


@st.composite
def _lines(draw):
    argv = [draw(_VERB)]
    if draw(st.integers(0, 3)):
        argv.append(f"--config={_CONFIG if draw(st.integers(0, 3)) else draw(_PATHS)}")
    if draw(st.integers(0, 3)):
        argv.append("--workdir=absent_folder")
    words = st.one_of(_OVERRIDES, _OVERRIDES, _FLAG, _BARE, _ODD)
    rest = draw(st.lists(words, max_size=4))
    place = draw(st.integers(0, len(argv)))
    return [*argv[:place], *rest, *argv[place:]] if draw(st.booleans()) else [*argv, *rest]


@pytest.fixture
def stubs(monkeypatch, tmp_path):
    """Verbs that note their configuration instead of doing their work, in an empty folder."""
    seen = []

    def note(values, *_):
        seen.append(values.config if "config" in values else None)

    for verb in _STUBBED:
        monkeypatch.setattr(importlib.import_module(f"delg_jax.cli.{verb}"), "run", note)
    monkeypatch.chdir(tmp_path)
    return seen


@cases(600)
def test_any_command_line_runs_or_ends_in_one_line(stubs, tmp_path, examples):
    kinds = {name: type(value) for name, value in _plain(default.get_config()).items()}

    def check(argv):
        stubs.clear()
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(argv)
        assert not list(tmp_path.iterdir())
        if status == 2:
            assert err.getvalue().startswith("delg: ")
            assert len(err.getvalue().splitlines()) == 1
            assert "Traceback" not in err.getvalue()
            assert not stubs
            return
        assert status == 0
        assert stubs or out.getvalue()
        for config in stubs:
            if config is not None:
                found = _plain(config)
                assert {name: type(value) for name, value in found.items()} == kinds

    hold(examples, check, _lines())


def _plain(config):
    return configuration.flatten(config)
