import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.features.formats import hloc
from experiments.local_to_global import root_sift
from tests.photographs import make_revisited


def test_descriptors_are_centred_and_of_unit_norm(tmp_path):
    pytest.importorskip("cv2", reason="SIFT needs OpenCV")
    root, path = make_revisited(tmp_path / "photographs"), tmp_path / "sift.h5"
    arguments = [f"--root={root}", f"--output={path}", "--pca_dim=16", "--features=50"]
    assert run_experiment(root_sift, arguments) == 0
    names = [file.stem for file in (root / "jpg").iterdir()]
    with hloc.reading(path) as reader:
        found = [reader.read_local(name).descriptors for name in names]
    assert max(map(len, found)) <= 50
    everything = np.concatenate(found)
    assert everything.shape[1] == 16
    np.testing.assert_allclose(np.linalg.norm(everything, axis=1), 1, rtol=1e-3)
    assert np.abs(everything.mean(axis=0)).max() < 0.3  # RootSIFT itself has no negative entries


def test_an_output_must_be_named(capsys):
    assert run_experiment(root_sift, ["--root=x"]) == 2
    assert "--output" in capsys.readouterr().err
