import json
from types import SimpleNamespace

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from experiments.tables import own_photos
from tests.photographs import draw, save
from tests.tiny import retrieval_config


@pytest.fixture
def folder(tmp_path):
    for label in ("arch", "bridge", "unknown"):
        for number in range(3):
            save(tmp_path / label / f"{number}.jpg", draw(number, 40, 40))
    return tmp_path


class Searching:
    """Finds images of the class `arch` first, by one method; nothing else by the other."""

    methods = ("local", "local+mds")
    source = SimpleNamespace(names=["arch/a", "arch/b", "bridge/a"])

    def __init__(self, *given):
        pass

    def query(self, picture):
        return picture.shape

    def search(self, query, method, top):
        order = [0, 1, 2] if method == "local" else [2, 0, 1]
        return SimpleNamespace(hits=[SimpleNamespace(image=image) for image in order[:top]])


def test_precision_is_at_most_what_the_class_has():
    assert own_photos.precisions(["a", "b", "a", "a", "b", "a"], "a", 9) == (60, 100)
    assert own_photos.precisions(["b", "a", "c"], "a", 1) == (100, 0)


def test_queries_are_the_first_of_each_class(folder):
    found = own_photos.chosen_queries(folder, {"arch", "bridge"}, 2)
    assert found == [
        ("arch/0.jpg", "arch"),
        ("arch/1.jpg", "arch"),
        ("bridge/0.jpg", "bridge"),
        ("bridge/1.jpg", "bridge"),
    ]


def test_the_command_compares_methods_by_class(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own_photos, "Searcher", Searching)
    monkeypatch.setattr(own_photos.stored_config, "read", lambda _: retrieval_config(tmp_path))
    results = tmp_path / "results"
    flags = ["--index=w", f"--queries={folder}", f"--results={results}"]
    assert run_experiment(own_photos, flags) == 0
    assert "4 queries of 2 classes" in capsys.readouterr().out
    rows = json.loads((results / "own_photos.json").read_text())["methods"]
    by_method = {row["method"]: row for row in rows}
    assert np.isclose(by_method["local"]["p@5"]["mean"], 100)
    assert by_method["local"]["p@1"] == 50
    assert by_method["local+mds"]["p_value"] is None


@pytest.mark.parametrize("flag", ["--queries=", "--queries={}/none", "--method=nearest"])
def test_what_cannot_be_searched_is_refused(folder, monkeypatch, capsys, flag):
    monkeypatch.setattr(own_photos, "Searcher", Searching)
    monkeypatch.setattr(own_photos.stored_config, "read", lambda _: retrieval_config(folder))
    flags = ["--index=w", f"--queries={folder}", flag.format(folder)]
    assert run_experiment(own_photos, flags) == 2
    assert flag.partition("=")[0] in capsys.readouterr().err
