from delg_jax import workdir as outputs
from delg_jax.cli.main import main
from tests.reports import workdirs


def test_workdirs_are_positional(capsys, tmp_path):
    for name in ("a", "b"):
        outputs.write_json(tmp_path / name / "train_metrics.json", {"loss": 1.5})
    output = tmp_path / "page.html"
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["report", *folders, f"--output={output}", "--title=Two runs"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    page = output.read_text()
    assert all(folder in page for folder in folders)
    assert "<h1>Two runs</h1>" in page


def test_flags_reach_the_page(tmp_path):
    folder = workdirs.make(tmp_path / "run", tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "moved")
    output = tmp_path / "page.html"
    flags = [f"--data_root={tmp_path / 'moved'}", "--queries=2", "--pictures=0", "--choose=worst"]
    assert main(["report", str(folder), f"--output={output}", *flags]) == 0
    page = output.read_text()
    assert "2 of 4 queries are listed" in page
    assert "Medium: precision over recall" in page
    assert "This report holds no pictures" in page


def test_a_workdir_is_required_and_must_exist(capsys, tmp_path):
    assert main(["report"]) == 2
    assert "needs WORKDIR..." in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent"), f"--output={tmp_path / 'page.html'}"]) == 2
    assert "absent" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_wrong_amounts_are_one_line(capsys, tmp_path):
    folder = workdirs.make(tmp_path / "run", tmp_path / "data")
    for flag in ("--top=0", "--choose=nicest"):
        assert main(["report", str(folder), flag, f"--output={tmp_path / 'page.html'}"]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"delg: {flag.split('=')[0]}")


def test_help_shows_the_positional_argument(capsys):
    assert main(["report", "--help"]) == 0
    assert "usage: delg report WORKDIR... [--flag=value ...]" in capsys.readouterr().out
