import json

import pytest

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import bench_all

ENVIRONMENT = {
    "device": "cpu",
    "devices": 1,
    "processor": "Brand",
    "cpus": 2,
    "commit": "abc",
    "date": "2026-01-02",
    "kernels": ["openblas 0.3 Zen"],
    "pinned": [],
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
    assert lines[-1] == (
        "1 cpu, 2 cores (Brand); BLAS kernels: openblas 0.3 Zen; BLAS pinned: none; jax 0.10; "
        "commit abc; 2026-01-02."
    )


def test_each_kind_of_processor_has_its_table_and_one_caption(result):
    other = {**ENVIRONMENT, "processor": "Other(R) CPU @ 2.0GHz", "pinned": ["OPENBLAS_X=Y"]}
    again = {**result, "environment": {**ENVIRONMENT, "commit": "abc-dirty"}}
    text = bench_all.table([result, again, {**result, "environment": other}])
    assert [text.count(f"| {kind}: benchmark") for kind in ("Brand", "Other")] == [1, 1]
    assert text.count("commit abc, abc-dirty") == 1
    assert "pinned: OPENBLAS_X=Y" in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Intel(R) Xeon(R) Processor", "Intel Xeon"),
        ("AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763"),
        ("Intel(R) Core(TM) i7-9 CPU @ 2.60GHz", "Intel Core i7-9"),
        ("", "unknown"),
    ],
)
def test_kinds_of_processor(name, kind):
    assert bench_all.kind_of_processor(name) == kind


def test_memory_has_one_row_for_a_stage():
    rows = [
        {"stage": "global", "bound": "x=1", "images": 1000, "megabytes": 3.2},
        {"stage": "global", "bound": "x=1", "images": 2000, "megabytes": None},
    ]
    text = bench_all.table([{"name": "memory", "rows": rows, "environment": ENVIRONMENT}])
    assert "3 at 1,000, - at 2,000" in text


@pytest.mark.slow
def test_results_are_written_beside_those_of_other_processors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_all.environment, "processor", lambda: "Brand(R) 9")
    (tmp_path / "bench_train_on_old.json").write_text('{"of": "an older program"}')
    flags = ["--size=tiny", "--only=global_one", "--peers=none"]
    assert run_experiment(bench_all, [*flags, f"--results={tmp_path}"]) == 0
    found = json.loads((tmp_path / "bench_global_one_on_brand_9.json").read_text())
    assert found["repeats"] == 7
    assert found["environment"]["command"].startswith("python -m delg_jax bench global_one")
    assert str(tmp_path) not in found["environment"]["command"]
    assert found["environment"]["pinned"] == []
    output = capsys.readouterr().out
    assert "| global_one" in output
    assert "minutes" in output


def test_a_failed_case_is_reported(tmp_path):
    found = bench_all.measure("waltz", "tiny", "none", tmp_path / "a.json")
    assert found == "waltz: ended with status 2"


def test_an_unknown_name_is_refused(capsys):
    assert run_experiment(bench_all, ["--only=waltz"]) == 2
    assert "waltz" in capsys.readouterr().err
