import json

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from experiments.benchmarks import bench_all

ENVIRONMENT = {
    "device": "cpu",
    "devices": 1,
    "processor": "Brand",
    "cpus": 2,
    "commit": "abc",
    "versions": {"jax": "0.10"},
}


def timed(name, kind, median, ratio):
    return {
        "name": name,
        "kind": kind,
        "median": median,
        "spread": 1e-5,
        "ratio": ratio,
        "facts": {"overlap": 0.95} if kind == "variant" else {},
    }


@pytest.fixture
def result():
    return {
        "name": "local",
        "unit": "query",
        "implementations": [
            timed("exact", "ours", 0.002, 1),
            timed("ivf", "variant", 2.0, 1000),
            timed("faiss", "peer", 0.004, 2),
        ],
        "roofline": {"share": 0.5},
        "environment": ENVIRONMENT,
    }


def test_ours_comes_first_and_peers_follow(result):
    lines = bench_all.table([result]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "local",
        "exact",
        "2 ms/query",
        "10 us",
        "",
        "50%",
    ]
    assert "ivf (ours), overlap 95%" in lines[3]
    assert "2 s/query" in lines[3]
    assert "faiss (peer)" in lines[4]
    assert "2.00" in lines[4]
    assert lines[-1] == "1 cpu, 2 cores (Brand); jax 0.10; commit abc."


def test_memory_has_one_row_for_a_stage():
    rows = [
        {"stage": "global", "bound": "x=1", "images": 1000, "megabytes": 3.2},
        {"stage": "global", "bound": "x=1", "images": 2000, "megabytes": None},
    ]
    text = bench_all.table([{"name": "memory", "rows": rows, "environment": ENVIRONMENT}])
    assert "3 at 1,000, - at 2,000" in text


def test_only_the_text_between_the_marks_changes():
    text = f"before\n{bench_all.BEGIN}\nold\n{bench_all.END}\nafter\n"
    once = bench_all.replaced(text, "new")
    assert once == f"before\n{bench_all.BEGIN}\nnew\n{bench_all.END}\nafter\n"
    assert bench_all.replaced(once, "new") == once
    for broken in ("no marks", f"{bench_all.END} {bench_all.BEGIN}"):
        with pytest.raises(UserError, match="--page"):
            bench_all.replaced(broken, "new")


def test_results_and_the_page_are_written(tmp_path, capsys):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"{bench_all.BEGIN}\n{bench_all.END}\n")
    (tmp_path / "bench_train.json").write_text('{"of": "an older program"}')
    flags = ["--size=tiny", "--only=global_one", "--peers=none"]
    paths = [f"--page={page}", f"--results={tmp_path}"]
    assert run_experiment(bench_all, [*flags, *paths]) == 0
    assert json.loads((tmp_path / "bench_global_one.json").read_text())["repeats"] == 7
    assert "| global_one" in page.read_text()
    assert "minutes" in capsys.readouterr().out


def test_a_failed_case_is_reported(tmp_path):
    found = bench_all.measure("global", "waltz", "none", tmp_path / "a.json")
    assert found == "global: ended with status 2"


def test_an_unknown_name_is_refused(capsys):
    assert run_experiment(bench_all, ["--only=waltz"]) == 2
    assert "waltz" in capsys.readouterr().err
