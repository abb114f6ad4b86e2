import json

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import local_to_global_growth as bench
from tests import charts


def test_a_database_repeats_its_block():
    block = np.arange(6).reshape(3, 2)
    rows = bench.repeated(block, 8)
    assert rows.shape == (8, 2)
    np.testing.assert_array_equal(np.asarray(rows), np.concatenate([block, block, block])[:8])
    np.testing.assert_array_equal(rows[np.array([7, 0])], block[[1, 0]])


def test_sizes_that_would_take_too_long_are_not_run(monkeypatch):
    prepared = []

    def prepare(images):
        prepared.append(images)
        return bench.Prepared(None, None, images / 10)

    monkeypatch.setattr(bench, "time_query", lambda _: (prepared[-1] / 100, None))
    rows = bench.grow(prepare, (1000, 10, 100), 2.0)
    assert prepared == [10, 100]
    assert [row.get("milliseconds") for row in rows] == [100, 1000, None]
    assert rows[-1] == {"images": 1000, "expected_milliseconds": 10_000}
    assert bench.exponent(rows) == pytest.approx(1.0)
    assert bench.exponent(rows[:1]) is None
    assert "not run: about 10 s" in bench.table({"exact": rows}, 2.0)
    sums = bench.arithmetic({"exact": rows}, 1000, 86.4)
    assert "= 10,000 s" in sums[2]
    assert "= 1,000 days" in sums[3]


@pytest.mark.slow
def test_every_engine_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "_BASE", 4)
    monkeypatch.setattr(bench, "_FEATURES", 8)
    monkeypatch.setattr(bench, "_REPEATS", 1)
    bench._images.cache_clear()
    arguments = [f"--results={tmp_path}", "--images=20", "--images=40", "--cann_images=3"]
    try:
        assert run_experiment(bench, arguments) == 0
    finally:
        bench._images.cache_clear()
    found = json.loads((tmp_path / "local_to_global_growth.json").read_text())["engines"]
    assert list(found) == list(bench.ENGINES)
    assert [row["images"] for row in found["exact, one bit"]] == [20, 40]
    one, half = (found[f"exact, {name}"][0]["stored_megabytes"] for name in ("one bit", "float16"))
    assert half == 16 * one == 20 * 8 * 128 * 2 / 1e6
    assert found["cann"][0]["stored_megabytes"] > 0
    assert "similarity graph: 270 s" in capsys.readouterr().out
    curves, _ = charts.read((tmp_path / "local_to_global_growth.svg").read_text())
    assert len(curves) == len(bench.ENGINES)
