from pathlib import Path

import pytest

from delg_jax.cli.main import main
from delg_jax.evaluation import query

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}:smoke"


@pytest.fixture
def calls(monkeypatch):
    noted = []

    def search_image(*arguments):
        noted.append(arguments[1:])
        return [query.Hit("arch", 12.0), query.Hit("bridge", 0.25)]

    monkeypatch.setattr(query, "search_image", search_image)
    return noted


def test_hits_are_printed(calls, capsys):
    flags = ["--image=a.jpg", "--box=1,2,30.5,40", "--method=global+sp", "--top=2"]
    assert main(["search", CONFIG, "--workdir=w", *flags]) == 0
    assert calls == [("w", "a.jpg", (1, 2, 30.5, 40), "global+sp", 2, False)]
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["|", "rank", "|", "image", "|", "inliers", "|"]
    assert first.split() == ["|", "1", "|", "arch", "|", "12", "|"]
    assert second.split() == ["|", "2", "|", "bridge", "|", "0.25", "|"]


def test_without_a_box_all_of_the_picture_is_searched(calls, capsys):
    assert main(["search", CONFIG, "--workdir=w", "--image=a.jpg"]) == 0
    assert calls == [("w", "a.jpg", None, "global", 10, False)]
    assert "score" in capsys.readouterr().out


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "5,5,5,9", "1,2,3,4,5", ""])
def test_a_wrong_box_is_refused(calls, capsys, box):
    assert main(["search", CONFIG, "--workdir=w", "--image=a.jpg", f"--box={box}"]) == 2
    assert capsys.readouterr().err.startswith("delg: --box")
    assert calls == []


def test_an_image_is_required(calls, capsys):
    assert main(["search", CONFIG, "--workdir=w"]) == 2
    assert "--image" in capsys.readouterr().err
