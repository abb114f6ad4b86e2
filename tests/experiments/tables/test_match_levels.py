import json
from types import SimpleNamespace

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.retrieval.searcher import Verdict
from experiments.tables import match_levels
from experiments.tables.match_levels import Judged
from tests import photographs
from tests.tiny import retrieval_config


@pytest.fixture
def data(tmp_path):
    photographs.make_revisited(tmp_path / "data")
    photographs.make_folder(tmp_path / "absent", classes=2, train=3, validation=0)
    return tmp_path


class Searching:
    """Finds its images in order: the first strong, the second weak; of the absent, one is weak."""

    def __init__(self, *given):
        self.source = [f"place{n}_{view}" for n in range(4) for view in ("near", "far")]
        self.source = type("Names", (list,), {"names": self.source})(self.source)

    def query(self, picture, box=None):
        return box

    def search(self, query, method, top):
        return SimpleNamespace(hits=[SimpleNamespace(image=image) for image in range(top)])

    def judge(self, query, hits):
        levels = ["strong", "weak"] if query is not None else ["chance", "weak"]
        levels = [*levels, *["chance"] * (len(hits) - 2)]
        return Verdict([0] * len(hits), levels, 2, {}, 0.0)


def test_shares_by_hand():
    present = [
        Judged(["strong", "weak", "chance"], [True, False, True]),
        Judged(["chance", "chance"], [True, False]),
    ]
    strong, weak, every = match_levels.measure(present, [Judged(["weak"], [False])])
    assert (strong["precision"], strong["present"], strong["absent"]) == (100, 50, 0)
    assert strong["recall"] == pytest.approx(100 / 3)
    assert (weak["precision"], weak["absent"]) == (50, 100)
    assert (every["results"], every["precision"], every["recall"]) == (5, 60, 100)
    assert match_levels.measure([], [])[0]["precision"] is None


def test_the_first_images_of_each_place_are_searched():
    rows = [("a/1", "a"), ("b/1", "b"), ("a/2", "a"), ("a/3", "a")]
    assert match_levels.first_of_each(rows, 2) == ["a/1", "a/2", "b/1"]


def test_the_command_judges_present_and_absent_places(data, monkeypatch, capsys):
    monkeypatch.setattr(match_levels, "Searcher", Searching)
    config = retrieval_config(data / "data")
    monkeypatch.setattr(match_levels.stored_config, "read", lambda _: config)
    flags = ["--index=w", f"--absent={data / 'absent' / 'train'}", f"--results={data}", "--top=4"]
    assert run_experiment(match_levels, flags) == 0
    assert "4 queries" in capsys.readouterr().out
    result = json.loads((data / "match_levels.json").read_text())
    strong, weak, every = result["rows"]
    assert (result["present"], result["absent"]) == (4, 4)
    assert (strong["results"], strong["precision"]) == (4, 25)  # of the first query alone
    assert (weak["precision"], weak["present"], weak["absent"]) == (25, 100, 100)
    assert every["recall"] == 100


@pytest.mark.parametrize("flag", ["--absent=", "--absent={}/none"])
def test_what_cannot_be_searched_is_refused(data, capsys, flag):
    assert run_experiment(match_levels, ["--index=w", flag.format(data)]) == 2
    assert "--absent" in capsys.readouterr().err
