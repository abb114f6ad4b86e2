import json

import numpy as np
import pytest

from configs import default
from delg_jax.cli.main import main, run_experiment
from delg_jax.features.storage import encodings
from experiments.local_to_global import scale
from experiments.local_to_global.scale import Images
from tests.photographs import make_revisited
from tests.search.test_ivf import halves
from tests.tiny import command_line, retrieval_config


@pytest.fixture
def photographs(rng):
    return Images(*halves(rng, 6, 9, 16))


def test_a_distractor_lies_between_two_photographs(photographs):
    descriptors, mask = photographs
    seen = set()
    for number in range(20):
        made, present = scale.distractor(photographs, number)
        assert (made.dtype, made.shape, present.shape) == (np.float16, (9, 16), (9,))
        assert (made[~present] == 0).all()
        features = made[present].astype(np.float32)
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=2e-3)
        # Each feature is nearer to features of photographs than they are to each other
        every = descriptors[mask]
        near = (features @ every.T).max(axis=1)
        assert (near > 0.7).all()
        assert (near < 0.999).any() or not len(near)
        again, _ = scale.distractor(photographs, number)
        np.testing.assert_array_equal(made, again)
        seen.add(made.tobytes())
    assert len(seen) == 20


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_a_database_begins_with_the_real_images(rng, photographs, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(scale, "_BLOCK", 4)
    real = Images(*halves(rng, 5, 9, 16))
    made = scale.write_database(real, photographs, 11, encoding, tmp_path)
    codes = encodings.encode(real.descriptors.astype(np.float32), encoding)
    expected = encodings.decode(codes, encoding)
    np.testing.assert_array_equal(made.descriptors[:5], expected)
    np.testing.assert_array_equal(made.mask[:5], real.mask)
    rows, mask = scale.distractor(photographs, 9)
    np.testing.assert_allclose(made.descriptors[9], rows, atol=0.01)
    np.testing.assert_array_equal(made.mask[9], mask)
    part = scale.first_images(made, 7)
    assert (len(part.descriptors), len(part.mask)) == (7, 7)
    np.testing.assert_array_equal(part.descriptors[np.array([6, 2])], made.descriptors[[6, 2]])
    monkeypatch.setattr(scale, "distractor", None)  # what is whole is not made again
    scale.write_database(real, photographs, 11, encoding, tmp_path)


def test_all_images_as_candidates_rank_exactly(rng, photographs, tmp_path):
    config = default.get_config()
    config.search.candidates, config.search.threshold = 12, 0.1
    config.search.asmk.words = 4
    config.rerank.mds.short_list = 5
    real = Images(*halves(rng, 6, 9, 16))
    made = scale.write_database(real, photographs, 12, "float16", tmp_path)
    truth = [{"easy": [n], "hard": [], "junk": []} for n in range(3)]
    queries = Images(real.descriptors[:3], real.mask[:3])
    row = scale.measure(made, queries, truth, config, tmp_path / "index", True)
    assert row["map"]["local"] == row["map"]["exact"]
    assert row["map"]["local"]["easy"] == 100.0
    assert row["found_of_first_50"] == 1.0
    assert set(row["milliseconds"]) == {"candidates", "scores", "mds", "exact"}
    assert row["entries"] == made.mask.sum()
    config.rerank.mds.short_list = 0
    row = scale.measure(made, queries, truth, config, tmp_path / "index", False)
    assert set(row["map"]) == {"local"}


@pytest.mark.slow
def test_it_runs_on_a_workdir(tmp_path, capsys):
    folder = make_revisited(tmp_path / "photographs", places=3)
    config = retrieval_config(folder)
    assert main(["extract", *command_line(config), f"--workdir={tmp_path / 'run'}"]) == 0
    flags = [
        f"--features={tmp_path / 'run'}",
        f"--photographs={folder}",
        f"--work={tmp_path / 'work'}",
        f"--results={tmp_path}",
        "--sizes=6,20",
        "--exact_up_to=6",
        "--short_list=4",
        "--asmk=words=4",
    ]
    assert run_experiment(scale, flags) == 0
    rows = json.loads((tmp_path / "local_to_global_scale.json").read_text())["rows"]
    assert [row["images"] for row in rows] == [6, 20]
    assert ["exact" in row["map"] for row in rows] == [True, False]
    capsys.readouterr()
    assert run_experiment(scale, [*flags, "--sizes=3"]) == 2
    assert "--sizes" in capsys.readouterr().err
