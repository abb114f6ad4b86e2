import json

import pytest

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import bench_all, scale

RATES = scale.Rates(10.0, 1e9, 1e11, 20.0, 1e6, 4e8, 1000, "1 cpu, 2 cores")


def test_times_are_work_over_rate():
    rows = {row["stage"]: row for row in scale.plan(RATES)}
    assert rows["extract all images"]["seconds"] == scale.IMAGES / 10
    assert rows["extract all images"]["machines"] == 2  # in a day
    exact = rows["a query, local, floats"]
    assert exact["seconds"] == scale.IMAGES * 1e6 / 1e9
    assert exact["bytes"] == scale.IMAGES * 1000 * 256
    ivf = rows["a query, local, engine ivf"]
    assert ivf["seconds"] == pytest.approx(exact["seconds"] / 20)
    store = rows["read the store, sign"]
    assert store["bytes"] == scale.IMAGES * (4096 + 1000 * 32)
    assert store["seconds"] == store["bytes"] / 4e8


def test_the_plan_says_what_it_rests_on():
    text = scale.text(RATES, scale.plan(RATES))
    assert "1 cpu, 2 cores" in text
    assert "1,000 images" in text
    assert "1.16 days" in text  # of extraction


def test_rates_are_read_from_the_benchmarks(tmp_path, capsys):
    environment = {"devices": 1, "device": "cpu", "cpus": 2, "processor": "Brand(R) 9 CPU @ 2GHz"}
    ours = {"name": "ours", "units_per_second": 2.0, "ratio": 1.0}
    timed = {
        "size": {"images": 3, "features": 10},
        "implementations": [ours, {"name": "engine ivf", "ratio": 0.1}],
        "environment": environment,
    }
    for name in scale._CASES:
        path = bench_all.path_of(tmp_path, name, "Brand 9")
        path.write_text(json.dumps({**timed, "name": name}))
        other = {**timed, "name": name, "environment": {**environment, "processor": "A"}}
        if name != "binary":  # a machine that lacks one case gives no rates
            bench_all.path_of(tmp_path, name, "A").write_text(json.dumps(other))
    assert run_experiment(scale, [f"--results={tmp_path}"]) == 2
    assert "store_reading.json" in capsys.readouterr().err
    store = {"bytes": 100, "images": 7, "read_features": {"seconds": 4.0}}
    (tmp_path / "store_reading.json").write_text(json.dumps(store))
    assert run_experiment(scale, [f"--results={tmp_path}"]) == 0
    rates = json.loads((tmp_path / "scale.json").read_text())["rates"]
    assert rates["floats"] == rates["bits"] == 600
    assert (rates["images"], rates["global_images"], rates["read"]) == (2, 6, 25)
    assert rates["ivf"] == 10
    assert rates["machine"] == "1 cpu, 2 cores (Brand 9)"
    assert (tmp_path / "scale.md").read_text() == capsys.readouterr().out
