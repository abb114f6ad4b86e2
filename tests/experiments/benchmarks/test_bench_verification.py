"""How the time of spatial verification grows."""

import json
import sys

import jax
import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.spatial_verification import verify
from experiments.benchmarks import bench_verification


def test_a_sixth_of_the_features_is_planted():
    query, candidates = bench_verification.plant(bench_verification.Work(600, 1000, 2))
    settings = SpatialSettings(local_optimization=True)
    inliers = verify(query, candidates, np.arange(2), jax.random.key(0), settings)
    assert ((inliers >= 100) & (inliers < 115)).all()


def test_exponent_of_a_square():
    points = [(1, 50.0), (10, 1.0), (20, 4.0), (40, 16.0)]
    assert bench_verification.exponent(points) == pytest.approx(2.0)


def test_writes_table_and_plot(tmp_path, capsys):
    arguments = ["--size=quick", "--repeats=1", f"--results={tmp_path}"]
    assert run_experiment(sys.modules[bench_verification.__name__], arguments) == 0
    content = json.loads((tmp_path / "bench_verification.json").read_text(encoding="utf-8"))
    for field, numbers in bench_verification.GROWTH["quick"].items():
        assert [n for n, _ in content["growth"][field]] == list(numbers)
    assert set(content["descriptors"]) == set(bench_verification.DESCRIPTORS)
    assert capsys.readouterr().out == (tmp_path / "bench_verification.md").read_text("utf-8")
    assert "<svg" in (tmp_path / "bench_verification.svg").read_text("utf-8")
