"""The lists in docs/architecture.md of what one photograph and one training batch pass are so."""

import contextlib
import functools
import importlib
import inspect
import pathlib
import re
import sys
import threading

import jax
import pytest

import delg_jax
from delg_jax import configuration
from delg_jax.evaluation import evaluate
from delg_jax.training.train import train_and_evaluate
from tests.photographs import make_folder, make_revisited
from tests.tiny import retrieval_config, training_config

PACKAGE = pathlib.Path(delg_jax.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
PHOTOGRAPH, BATCH = "One photograph, from file to rank", "One training batch"
MOST = {PHOTOGRAPH: 18, BATCH: 20}


def steps(title):
    """The code objects of each row of the table below a title; a row may name alternatives."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.M).group()
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    found = []
    for _, functions, files in rows:
        names, paths = (re.findall(r"`([^`]+)`", cell) for cell in (functions, files))
        paths = paths if len(paths) == len(names) else paths * len(names)
        found.append([code_of(*place) for place in zip(names, paths, strict=True)])
    return found


def code_of(name, path):
    """The code of a function, whose name may start with its module or class."""
    module = importlib.import_module("delg_jax." + path.removesuffix(".py").replace("/", "."))
    parts = name.split(".")
    if parts[0] == pathlib.Path(path).stem and not hasattr(module, parts[0]):
        parts = parts[1:]
    function = inspect.unwrap(functools.reduce(getattr, parts, module))
    return getattr(function, "__code__", None) or function.__wrapped__.__code__


@contextlib.contextmanager
def calls():
    """Yields the set of the package's code objects that are called meanwhile, in any thread."""
    found = set()

    def profile(frame, event, _):
        if event == "call" and is_of_package(frame.f_code.co_filename):
            found.add(frame.f_code)

    jax.clear_caches()  # what is compiled is not called
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@functools.cache
def is_of_package(path):
    return path.startswith(str(PACKAGE))


def not_called(title, called):
    """Names of the functions of a list that are not called."""
    return [code.co_qualname for row in steps(title) for code in row if code not in called]


@pytest.mark.parametrize("title", [PHOTOGRAPH, BATCH])
def test_the_listed_functions_exist_and_are_few(title):
    assert 10 < len(steps(title)) <= MOST[title]


@pytest.mark.slow
def test_a_photograph_passes_the_listed_functions(tmp_path):
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    names = ("local+mds", "global", "local+sp")
    config = configuration.override(config, {"eval.methods": names, "extract.pca_dim": 4})
    with calls() as called:
        evaluate(config, tmp_path / "run")
    assert not not_called(PHOTOGRAPH, called)


@pytest.mark.slow
def test_a_batch_passes_the_listed_functions(tmp_path):
    config = training_config(make_folder(tmp_path / "photographs"))
    with calls() as called:
        train_and_evaluate(config, tmp_path / "run")
    assert not not_called(BATCH, called)
