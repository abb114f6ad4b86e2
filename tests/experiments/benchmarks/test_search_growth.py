import json

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import search_growth


def test_curves_are_measured_and_drawn(tmp_path, capsys):
    assert run_experiment(search_growth, ["--quick", "--repeats=1", f"--results={tmp_path}"]) == 0
    found = json.loads((tmp_path / "search_growth.json").read_text())["curves"]
    assert set(found) == set(search_growth.QUICK)
    for name, curve in found.items():
        _, grows, numbers = search_growth.QUICK[name]
        assert curve["grows"] == grows
        assert [number for number, _ in curve["points"]] == list(numbers)
        assert all(seconds > 0 for _, seconds in curve["points"])
    assert (tmp_path / "search_growth.md").read_text() == capsys.readouterr().out
    assert "local, devices" in (tmp_path / "search_growth.svg").read_text()


def test_full_curves_can_be_called():
    for name, (fixed, grows, numbers) in search_growth.FULL.items():
        make = search_growth._CALLS[name.partition(",")[0]]
        assert {*fixed, grows} <= set(make.__code__.co_varnames[: make.__code__.co_argcount])
        assert len(numbers) >= 3
