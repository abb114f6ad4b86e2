import json

import jax
import pytest

from delg_jax import configuration
from experiments.benchmarks import training_memory
from tests.tiny import tiny_config

CLASSES, DEVICES, IMAGES = 5000, 8, 2


def planned(split, part="heads"):
    changes = {"model.num_classes": CLASSES, "train.shard_classifier": split}
    config = configuration.override(tiny_config().lock(), {**changes, "data.image_size": 64})
    return training_memory.measure(config, part, DEVICES, IMAGES)


@pytest.mark.slow
def test_a_device_holds_its_share_of_the_classifiers():
    """Kernels of 16 and 64 dimensions, a bias, each with momentum, in float32."""
    classifiers = 2 * 4 * CLASSES * (16 + 64 + 1)
    whole, split = planned(False), planned(True)
    saved = whole["state_bytes"] - split["state_bytes"]
    assert saved == pytest.approx(classifiers * 7 / 8, rel=0.01)
    assert split["temporary_bytes"] < whole["temporary_bytes"]
    for found in (whole, split):
        assert found["peak_bytes"] > found["state_bytes"] + found["temporary_bytes"]


@pytest.mark.slow
def test_the_whole_step_takes_more_than_the_heads():
    heads, step = planned(True), planned(True, "step")
    assert step["state_bytes"] > heads["state_bytes"]


def test_an_earlier_run_of_the_same_network_is_kept(tmp_path):
    row = {"part": "heads", "classes": 100, "dtype": "bfloat16", "split": True, "devices": 8}
    row |= {"state_bytes": 1e9, "temporary_bytes": 2.5e9, "peak_bytes": 3.5e9}
    assert training_memory._earlier(tmp_path, "a network") == {}
    content = {"network": "a network", "programs": [row]}
    (tmp_path / "training_memory.json").write_text(json.dumps(content))
    (found,) = training_memory._earlier(tmp_path, "a network").values()
    assert found == row
    assert training_memory._earlier(tmp_path, "another") == {}
    line = training_memory.table([row]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["heads", "100", "bfloat16", "split over 8", "1.00", "2.50", "3.50"]


def test_nothing_is_allocated():
    before = {id(array) for array in jax.live_arrays()}
    planned(True)
    assert sum(a.nbytes for a in jax.live_arrays() if id(a) not in before) < 1e5
