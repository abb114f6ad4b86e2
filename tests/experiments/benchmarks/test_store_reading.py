import json
import sys

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.features.store import FeatureStore
from experiments.benchmarks import store_reading


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_reads_every_byte_of_what_it_wrote(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store_reading, "_CHUNK", 16)
    folder, results = tmp_path / "store", tmp_path / "results"
    arguments = [f"--store={folder}", "--images=40", f"--results={results}", "--memory=0.001"]
    assert run_experiment(store_reading, arguments) == 0
    found = json.loads((results / "store_reading.json").read_text())
    assert len(FeatureStore(folder)) == found["images"] == found["open_store"]["result"] == 40
    assert found["read_raw"]["result"] == sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file()
    )
    per_image = 4 * 2048 + 300 * (8 + 4 + 4 + 16 + 1)  # as it lies in memory, with the mask
    assert found["read_features"]["result"] >= 40 * per_image
    assert found["read_few"]["result"] == 40
    assert "40 images" in capsys.readouterr().out
    assert run_experiment(store_reading, arguments) == 0  # and does not write again
