from pathlib import Path

from delg_jax.cli.main import main
from delg_jax.training import conversion

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}:smoke"


def test_the_folder_is_printed(monkeypatch, capsys, tmp_path):
    def convert_weights(config, workdir, overwrite):
        assert (config.model.pretrained, overwrite) == ("weights.npz", True)
        return Path(workdir) / "checkpoints"

    monkeypatch.setattr(conversion, "convert_weights", convert_weights)
    weights = "--config.model.pretrained=weights.npz"
    assert main(["convert", CONFIG, weights, f"--workdir={tmp_path}", "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'checkpoints'}\n"


def test_weights_are_required(capsys, tmp_path):
    assert main(["convert", CONFIG, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("delg: config.model.pretrained = ''")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
