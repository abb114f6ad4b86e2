import shutil

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.training import loop
from delg_jax.training.train import train_and_evaluate
from tests.photographs import make_folder
from tests.tiny import training_config


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """A step that learns nothing, quickly."""

    def parallel_train_step(*_):
        def step(state, batch, logs):
            metrics = {"loss": np.float32(1), "nonfinite": -1}
            return state.replace(step=state.step + 1), metrics

        return step

    monkeypatch.setattr(loop, "parallel_train_step", parallel_train_step)


def on_images(root, **fields):
    config = training_config(root).copy_and_resolve_references().unlock()
    config.train.steps = 1
    config.data.update(fields)
    return config.lock()


def test_a_run_resumes_after_its_images_moved(tmp_path):
    make_folder(tmp_path / "photographs")
    record = train_and_evaluate(on_images(tmp_path / "photographs"), tmp_path / "run")
    shutil.copytree(tmp_path / "photographs", tmp_path / "moved")
    shutil.rmtree(tmp_path / "photographs")
    moved = on_images(f"{tmp_path / 'moved'}/", tfds_dir=str(tmp_path / "tfds"))
    assert train_and_evaluate(moved, tmp_path / "run") == record


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda root: (root / "train/class_1/2.jpg").unlink(), "train: 24 -> 23 images"),
        (
            lambda root: (root / "train/class_1/2.jpg").rename(root / "train/class_2/9.jpg"),
            "train: other names",
        ),
        (
            lambda root: shutil.copy(root / "train/class_0/0.jpg", root / "train/class_1/2.jpg"),
            "train: other contents",
        ),
        (lambda root: (root / "validation/class_3/0.jpg").unlink(), "validation: 12 -> 11 images"),
    ],
)
def test_a_run_is_not_resumed_on_other_images(tmp_path, change, rule):
    root = make_folder(tmp_path / "photographs")
    train_and_evaluate(on_images(root), tmp_path / "run")
    change(root)
    with pytest.raises(UserError, match=rf"workdir = .*{rule}.*--overwrite"):
        train_and_evaluate(on_images(root), tmp_path / "run")
    before = (tmp_path / "run" / "checkpoints" / "1").stat().st_ctime_ns
    train_and_evaluate(on_images(root), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "checkpoints" / "1").stat().st_ctime_ns != before
    train_and_evaluate(on_images(root), tmp_path / "run")


def test_a_run_without_stored_images_resumes_and_then_stores_them(tmp_path):
    root = make_folder(tmp_path / "photographs")
    record = train_and_evaluate(on_images(root), tmp_path / "run")
    for path in (tmp_path / "run").rglob("images.json"):
        path.unlink()
    assert train_and_evaluate(on_images(root), tmp_path / "run") == record
    (root / "train/class_1/2.jpg").unlink()
    with pytest.raises(UserError, match="workdir = .*other images"):
        train_and_evaluate(on_images(root), tmp_path / "run")
