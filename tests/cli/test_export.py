import re
from pathlib import Path

import pytest

from delg_jax.cli.main import main
from delg_jax.features import stablehlo
from delg_jax.features.formats import exported

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}:smoke"


DEFAULTS = {"canvas": None, "platforms": ("cpu", "cuda", "tpu"), "overwrite": False}


def fake_export_model(calls):
    def export_model(config, workdir, output, **options):
        calls.append((config.model.backbone, workdir, str(output), options))
        return Path(output)

    return export_model


@pytest.mark.parametrize(
    ("arguments", "name", "options"),
    [
        ([], "model.stablehlo", DEFAULTS),
        (
            ["--format=stablehlo", "--overwrite", "--canvas=512x768", "--platforms=cpu,tpu"],
            "model.stablehlo",
            {"overwrite": True, "canvas": (512, 768), "platforms": ("cpu", "tpu")},
        ),
        (["--output={}/other"], "other", DEFAULTS),
    ],
)
def test_the_model_is_the_default(monkeypatch, capsys, tmp_path, arguments, name, options):
    calls = []
    monkeypatch.setattr(stablehlo, "export_model", fake_export_model(calls))
    arguments = [argument.format(tmp_path) for argument in arguments]
    backbone = "--config.model.backbone=resnet18"
    assert main(["export", CONFIG, backbone, f"--workdir={tmp_path}", *arguments]) == 0
    path = str(tmp_path / name)
    assert calls == [("resnet18", str(tmp_path), path, options)]
    assert capsys.readouterr().out == f"{path}\n"


@pytest.mark.parametrize(
    ("kind", "name"), [("hloc", "features.h5"), ("delf", "delf"), ("ames", "ames")]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_features_go_to_their_writer(monkeypatch, capsys, tmp_path, kind, name, overwrite):
    calls = []

    def export_features(config, workdir, kind, output, overwrite):
        calls.append((workdir, kind, str(output), overwrite))
        return Path(output)

    monkeypatch.setattr(exported, "export_features", export_features)
    flags = [f"--workdir={tmp_path}", f"--format={kind}", f"--overwrite={overwrite}"]
    assert main(["export", CONFIG, *flags]) == 0
    path = str(tmp_path / name)
    assert calls == [(str(tmp_path), kind, path, overwrite)]
    assert capsys.readouterr().out == f"{path}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--format=onnx"], "--format = 'onnx': .*stablehlo, hloc, delf, ames"),
        (["--canvas=512"], "--canvas = '512': .*ROWSxCOLUMNS"),
        (["--canvas=0x512"], "--canvas = '0x512': .*ROWSxCOLUMNS"),
        (["--canvas=512x-1"], "--canvas = '512x-1': .*ROWSxCOLUMNS"),
        (["--platforms=cpu,abacus"], "--platforms = 'abacus': .*cpu,"),
        (["--platforms="], "--platforms = '': .*cpu,"),
        (["--format=hloc", "--canvas=64x64"], "--canvas = '64x64': .*--format=stablehlo"),
        (["--format=delf", "--platforms=cpu"], "--platforms = 'cpu': .*--format=stablehlo"),
    ],
)
def test_a_wrong_value_is_one_line(capsys, tmp_path, arguments, named):
    assert main(["export", CONFIG, f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    out, error = capsys.readouterr()
    assert re.match(f"delg: {named}", error)
    assert error.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_an_existing_output_is_refused(capsys, tmp_path):
    (tmp_path / "model.stablehlo").write_bytes(b"old")
    assert main(["export", CONFIG, f"--workdir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("delg: output = ")
    assert error.endswith("exists; --overwrite replaces it\n")
    assert (tmp_path / "model.stablehlo").read_bytes() == b"old"
