import importlib.util
import json

import pytest

from delg_jax.cli.main import main
from tests.holding import held
from tests.photographs import draw, make_revisited, save, truncate
from tests.tiny import command_line, revisited_config


@pytest.fixture
def root(tmp_path):
    return make_revisited(tmp_path / "photographs", places=2)


@pytest.fixture
def flags(root, tmp_path):
    config = revisited_config(root).copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    return [*command_line(config), f"--workdir={tmp_path / 'run'}"]


def refused(capsys, *argv):
    """The only line on stderr that is no progress, of a command that ends with status 2."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("delg: ")]
    assert len(lines) == 1
    assert err.endswith(f"{lines[0]}\n")
    return lines[0].removeprefix("delg: ")


def test_both_stores_are_made_and_named(flags, tmp_path, capsys):
    assert main(["extract", *flags]) == 0
    features = tmp_path / "run" / "features"
    assert capsys.readouterr().out.splitlines() == [
        f"{features / 'database'}: 4 images, 0 skipped",
        f"{features / 'queries'}: 2 images, 0 skipped",
    ]
    assert not list(features.rglob("skipped.csv"))


def test_a_truncated_photograph_ends_the_run_unless_allowed(flags, root, tmp_path, capsys):
    truncate(root / "jpg" / "place1_far.jpg")
    message = refused(capsys, "extract", *flags)
    assert message.startswith("config.data.max_skipped = 0: 1 ")
    assert "place1_far (" in message
    assert main(["extract", *flags, "--config.data.max_skipped=1"]) == 0
    assert "database: 4 images, 1 skipped" in capsys.readouterr().out
    rows = (tmp_path / "run/features/database/skipped.csv").read_text().splitlines()
    assert rows[0] == "image,reason"
    assert rows[1].startswith("place1_far,")
    assert len(rows) == 2


@pytest.mark.parametrize(("part", "pattern"), [("database", "place*"), ("queries", "query*")])
def test_without_an_image_that_can_be_used_it_is_one_line(flags, root, capsys, part, pattern):
    for path in (root / "jpg").glob(pattern):
        truncate(path)
    flags = [*flags, "--config.data.max_skipped=9"]
    for verb in ("extract", "evaluate", "index"):
        error = refused(capsys, verb, *flags)
        assert error.startswith("config.data.max_skipped = 9: none ")
        assert f"features/{part} " in error


def test_an_absent_root_is_refused(flags, capsys):
    message = refused(capsys, "extract", *flags, "--config.data.root=/no/such/folder")
    assert message.startswith("config.data.root = '/no/such/folder': ")


def test_absent_photographs_are_named(flags, root, capsys):
    (root / "jpg" / "query1.jpg").unlink()
    message = refused(capsys, "extract", *flags)
    assert message.startswith(f"ground truth = '{root / 'gnd_drawn.json'}': ")
    assert message.endswith(": query1")


def test_a_damaged_ground_truth_is_named(flags, root, capsys):
    (root / "gnd_drawn.json").write_text("{")
    message = refused(capsys, "extract", *flags)
    assert message.startswith(f"ground truth = '{root / 'gnd_drawn.json'}': ")


def test_a_folder_without_checkpoint_is_refused(flags, tmp_path, capsys):
    message = refused(capsys, "extract", *flags, f"--config.model.checkpoint={tmp_path}")
    assert message.startswith(f"config.model.checkpoint = '{tmp_path}': ")


def test_another_configuration_is_refused_with_the_difference(flags, tmp_path, capsys):
    assert main(["extract", *flags]) == 0
    capsys.readouterr()
    message = refused(capsys, "extract", *flags, "--config.extract.scale_pooling=max")
    assert message.startswith(f"workdir = '{tmp_path / 'run' / 'features' / 'database'}': ")
    assert message.endswith("config.extract.scale_pooling: 'mean' -> 'max'")
    other = [*flags, "--config.extract.scale_pooling=max"]
    assert main(["extract", *other, "--overwrite"]) == 0
    stored = json.loads((tmp_path / "run/features/queries/config.json").read_text())
    assert stored["config"]["extract.scale_pooling"] == "max"


def test_a_workdir_that_is_a_file_is_refused(flags, tmp_path, capsys):
    (tmp_path / "run").write_text("in the way")
    assert refused(capsys, "extract", *flags).startswith(f"--workdir = '{tmp_path / 'run'}': ")


def test_a_store_that_another_job_writes_is_refused(flags, tmp_path, capsys):
    folder = tmp_path / "run" / "features" / "database"
    with held(folder):
        message = refused(capsys, "extract", *flags)
    assert message.startswith(f"feature store = '{folder}': ")
    assert "another job" in message


def test_images_are_named_and_added_and_deleted(flags, root, tmp_path, capsys):
    folder, images = tmp_path / "run" / "features" / "images", f"--images={root / 'jpg'}"
    assert main(["extract", *flags, images]) == 0
    assert capsys.readouterr().out == f"{folder}: 6 images, 0 skipped\n"
    assert not (tmp_path / "run" / "features" / "database").exists()
    save(root / "jpg" / "added.png", draw(7, 64, 64))
    (root / "jpg" / "query0.jpg").unlink()
    message = refused(capsys, "extract", *flags, images)
    assert message.startswith(f"--images = '{root / 'jpg'}': ")
    assert all(word in message for word in (" 1 ", str(folder), "query0.jpg", "--delete_missing"))
    assert main(["extract", *flags, images, "--delete_missing"]) == 0
    assert capsys.readouterr().out == f"{folder}: 6 images, 0 skipped\n"


def test_a_single_picture_that_is_none_is_skipped(flags, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_text("no image")
    images = f"--images={tmp_path / 'broken.jpg'}"
    message = refused(capsys, "extract", *flags, images)
    assert message.startswith("config.data.max_skipped = 0: 1 ")
    assert main(["extract", *flags, images, "--config.data.max_skipped=1"]) == 0
    assert capsys.readouterr().out.endswith("images: 1 images, 1 skipped\n")


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--images=", "--images = ''"),
        ("--runner=", "--runner = ''"),
        ("--delete_missing", "--delete_missing = True"),
        ("--images=/no/such/folder", "--images = '/no/such/folder'"),
    ],
)
def test_wrong_flags_are_one_line(flags, tmp_path, capsys, flag, named):
    assert refused(capsys, "extract", *flags, flag).startswith(f"{named}: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("listed", [False, True])
def test_without_beam_a_runner_is_refused(flags, root, tmp_path, capsys, monkeypatch, listed):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "apache_beam" else find(name, *rest),
    )
    more = [f"--images={root / 'jpg'}"] if listed else []
    message = refused(capsys, "extract", *flags, *more, "--runner=DirectRunner")
    assert message.startswith("--runner = 'DirectRunner': ")
    assert "`beam`" in message
    assert not (tmp_path / "run").exists()
