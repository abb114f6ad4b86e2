import pytest

from delg_jax.cli.main import main
from delg_jax.models.delg import build
from delg_jax.training import optimizer, train
from delg_jax.training.checkpoints import FOLDER, Checkpoints
from delg_jax.training.optimizer import OptimizerSettings
from tests.photographs import make_folder, make_revisited
from tests.tiny import command_line, random_variables, revisited_config, training_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photographs"), classes=2)


def test_the_last_metrics_are_printed(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "train_and_evaluate", lambda *_: {"loss": 0.12345, "accuracy": 1})
    assert main(["train", *command_line(training_config(root)), f"--workdir={tmp_path}"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["|", "metric", "|", "value", "|"]
    assert [row.split()[1::2] for row in rows] == [["accuracy", "1"], ["loss", "0.1235"]]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.batch_size=9", "train.batch_size = 9"),
        ("data.root=/absent", "data.root = '/absent'"),
        ("model.backbone=resnet7", "model.backbone = 'resnet7'"),
        ("model.num_classes=5", "model.num_classes = 5"),
        ("seed=-1", "seed = -1"),
        ("seed=4294967296", "seed = 4294967296"),
    ],
)
def test_untrainable_data_are_refused(root, tmp_path, capsys, override, named):
    flags = [*command_line(training_config(root)), f"--workdir={tmp_path}"]
    assert main(["train", *flags, f"--config.{override}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"delg: config.{named}: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--num_processes=2"], "--coordinator = None"),
        (["--process_id=one"], "--process_id = 'one'"),
        (["--coordinator=host:1", "--num_processes=2", "--process_id=2"], "--process_id = 2"),
    ],
)
def test_half_a_description_of_processes_is_refused(root, tmp_path, capsys, flags, named):
    arguments = [*command_line(training_config(root)), f"--workdir={tmp_path}", *flags]
    assert main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"delg: {named}: ")
    assert len(err.splitlines()) == 1


def test_a_checkpoint_of_another_network_is_refused_by_extraction(tmp_path, capsys):
    config = training_config(tmp_path).copy_and_resolve_references()
    config.model.num_classes = 2
    state = optimizer.create_state(
        random_variables(build(config.model)),
        optimizer.create_optimizer(OptimizerSettings.of(config.train)),
    )
    with Checkpoints(tmp_path / "run" / FOLDER, config.model, 1) as checkpoints:
        checkpoints.save(state)
    flags = command_line(revisited_config(make_revisited(tmp_path / "photographs", places=1)))
    assert main(["extract", *flags, f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert sum(line.startswith("delg: ") for line in err.splitlines()) == 1
    assert "config.model.convention: 'slim' -> 'torchvision'" in err
