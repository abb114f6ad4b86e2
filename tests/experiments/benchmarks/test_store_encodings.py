import json
import math

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.features.store import FeatureStore
from experiments.benchmarks import store_encodings
from tests.photographs import make_revisited
from tests.tiny import command_line, retrieval_config


@pytest.mark.parametrize(("cosine", "expected"), [(1, 1), (0, 0), (-1, -1), (0.5, 1 / 3)])
def test_cosine_of_signs(cosine, expected):
    assert store_encodings.of_signs(cosine) == pytest.approx(expected)


def test_cosine_of_signs_is_what_random_vectors_have(rng):
    first, noise = rng.normal(size=(2, 200_000))
    second = 0.7 * first + math.sqrt(1 - 0.49) * noise
    found = np.mean(np.sign(first) == np.sign(second)) * 2 - 1
    assert found == pytest.approx(store_encodings.of_signs(0.7), abs=0.01)


@pytest.mark.slow
def test_encodings_have_the_same_features_in_fewer_bytes(tmp_path, capsys):
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    results = tmp_path / "results"
    arguments = [*command_line(config), f"--workdir={tmp_path / 'run'}", f"--results={results}"]
    assert run_experiment(store_encodings, arguments) == 0
    found = json.loads((results / "store_encodings.json").read_text())
    encodings = ("float32", "float16", "int8", "sign")
    bits = [found[name]["bytes"]["descriptors"] for name in encodings]
    assert bits == sorted(bits, reverse=True)
    stores = [
        FeatureStore(tmp_path / "run" / name / "features" / "database")
        for name in ("float32", "sign")
    ]
    first, second = (store.local_features(0) for store in stores)
    np.testing.assert_array_equal(first.locations, second.locations)
    np.testing.assert_array_equal(first.descriptors > 0, second.descriptors > 0)
    np.testing.assert_array_equal(*(store.global_descriptors() for store in stores))
    output = capsys.readouterr().out
    assert all(f"| {name} |" in output for name in encodings)
