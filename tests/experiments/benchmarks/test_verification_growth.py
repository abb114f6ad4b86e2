"""How the time of spatial verification grows."""

import json
import sys

import jax
import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.spatial_verification import verify
from experiments.benchmarks import verification_growth


def test_a_sixth_of_the_features_is_planted():
    query, candidates = verification_growth.plant(verification_growth.Problem(600, 1000, 2))
    settings = SpatialSettings(local_optimization=True)
    inliers = verify(query, candidates, np.arange(2), jax.random.key(0), settings)
    assert ((inliers >= 100) & (inliers < 115)).all()


@pytest.mark.slow
def test_writes_table_and_plot(tmp_path, capsys):
    arguments = ["--size=quick", "--repeats=1", f"--results={tmp_path}"]
    assert run_experiment(sys.modules[verification_growth.__name__], arguments) == 0
    content = json.loads((tmp_path / "verification_growth.json").read_text(encoding="utf-8"))
    for field, numbers in verification_growth.GROWTH["quick"].items():
        assert [n for n, _ in content["growth"][field]] == list(numbers)
    assert set(content["descriptors"]) == set(verification_growth.DESCRIPTORS)
    assert capsys.readouterr().out == (tmp_path / "verification_growth.md").read_text("utf-8")
    assert "<svg" in (tmp_path / "verification_growth.svg").read_text("utf-8")
