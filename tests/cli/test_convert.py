from pathlib import Path

import numpy as np
import pytest

from delg_jax.cli.main import main
from delg_jax.models.weights.names import NAMINGS
from delg_jax.training import convert
from tests.models.weights.foreign import foreign, model_of

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}:smoke"


def test_the_folder_is_printed(monkeypatch, capsys, tmp_path):
    def convert_weights(config, workdir, overwrite):
        assert (config.model.pretrained, overwrite) == ("weights.npz", True)
        return Path(workdir) / "checkpoints"

    monkeypatch.setattr(convert, "convert_weights", convert_weights)
    weights = "--config.model.pretrained=weights.npz"
    assert main(["convert", CONFIG, weights, f"--workdir={tmp_path}", "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'checkpoints'}\n"


def test_weights_are_required(capsys, tmp_path):
    assert main(["convert", CONFIG, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("delg: config.model.pretrained = ''")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_mapping_is_a_field_of_the_configuration(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        convert, "convert_weights", lambda config, *_: seen.append(config.model) or tmp_path
    )
    assert main(["convert", CONFIG, f"--workdir={tmp_path}", "--mapping=map.json"]) == 0
    assert seen[0].pretrained_mapping == "map.json"


class Bomb:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write_truncated(folder, arrays):
    np.savez(folder / "weights.npz", **arrays)
    whole = (folder / "weights.npz").read_bytes()
    (folder / "weights.npz").write_bytes(whole[: len(whole) // 2])
    return "weights.npz"


def write_another_architecture(folder, arrays):
    np.savez(folder / "weights.npz", **arrays, **{"layer1.1.conv1.weight": np.ones(1)})
    return "weights.npz"


def write_code(folder, arrays):
    np.savez(folder / "weights.npz", **arrays, bomb=np.array([Bomb(folder / "trace")], object))
    return "weights.npz"


def write_nothing(folder, arrays):
    del arrays
    (folder / "weights").mkdir()
    return "weights"


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (write_truncated, "intact"),
        (write_another_architecture, "1 surplus (layer1.1.conv1.weight)"),
        (write_code, "plain arrays"),
        (write_nothing, "variables/variables.index"),
    ],
)
def test_a_wrong_file_is_one_line(capsys, tmp_path, rng, writer, words):
    model = model_of("tiny")
    _, arrays = foreign(NAMINGS["torchvision"][0], model, rng)
    file = tmp_path / writer(tmp_path, arrays)
    options = {"backbone": "tiny", "convention": "torchvision", "conv4_stride": 16}
    options |= {"pretrained": file, "pretrained_source": "torchvision"}
    flags = [f"--config.model.{name}={value}" for name, value in options.items()]
    assert main(["convert", CONFIG, *flags, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("delg: config.model.pretrained")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "trace").exists()
