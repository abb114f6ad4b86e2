from delg_jax import workdir as artefacts
from delg_jax.cli.main import main


def test_workdirs_are_positional(capsys, tmp_path):
    for name in ("a", "b"):
        artefacts.write_json(tmp_path / name / "train_metrics.json", {"loss": 1.5})
    output = tmp_path / "page.html"
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["report", *folders, f"--output={output}", "--title=Two runs"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    page = output.read_text()
    assert all(folder in page for folder in folders)
    assert "<h1>Two runs</h1>" in page


def test_a_workdir_is_required_and_must_exist(capsys, tmp_path):
    assert main(["report"]) == 2
    assert "needs WORKDIR..." in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent"), f"--output={tmp_path / 'page.html'}"]) == 2
    assert "absent" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_help_shows_the_positional_argument(capsys):
    assert main(["report", "--help"]) == 0
    assert "usage: delg report WORKDIR... [--flag=value ...]" in capsys.readouterr().out
