import shutil

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.training import loop
from delg_jax.training.train import train_and_evaluate
from tests.photographs import make_folder
from tests.tiny import training_config


@pytest.fixture(scope="module", autouse=True)
def stand_in():
    """A step that learns nothing, quickly, and no validation."""

    def parallel_train_step(*_):
        def step(state, batch, logs):
            metrics = {"loss": np.float32(1), "nonfinite": -1}
            return state.replace(step=state.step + 1), metrics

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "parallel_train_step", parallel_train_step)
        patch.setattr(loop, "Validation", lambda *_: lambda *_: {})
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the workdir of a run and its photographs, which moved, and the record."""
    folder = tmp_path_factory.mktemp("trained")
    root = make_folder(folder / "photographs")
    record = train_and_evaluate(on_images(root), folder / "run")
    root.rename(folder / "moved")
    return folder, record


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the photographs and the workdir, and the record."""
    return shutil.copytree(trained[0], tmp_path / "copy"), trained[1]


def on_images(root, **fields):
    config = training_config(root).copy_and_resolve_references().unlock()
    config.train.steps = 1
    config.data.update(fields)
    return config.lock()


def test_a_run_resumes_after_its_images_moved(copied, tmp_path):
    folder, record = copied
    moved = on_images(f"{folder / 'moved'}/", tfds_dir=str(tmp_path / "tfds"))
    assert train_and_evaluate(moved, folder / "run") == record


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
def test_a_run_is_not_resumed_on_other_images(copied, change, rule):
    folder, _ = copied
    root = folder / "moved"
    change(root)
    with pytest.raises(UserError, match=rf"workdir = .*{rule}.*--overwrite"):
        train_and_evaluate(on_images(root), folder / "run")
    before = (folder / "run" / "checkpoints" / "1").stat().st_ctime_ns
    train_and_evaluate(on_images(root), folder / "run", overwrite=True)
    assert (folder / "run" / "checkpoints" / "1").stat().st_ctime_ns != before
    train_and_evaluate(on_images(root), folder / "run")


def test_a_run_without_stored_images_resumes_and_then_stores_them(copied):
    folder, record = copied
    root = folder / "moved"
    for path in (folder / "run").rglob("images.json"):
        path.unlink()
    assert train_and_evaluate(on_images(root), folder / "run") == record
    (root / "train/class_1/2.jpg").unlink()
    with pytest.raises(UserError, match="workdir = .*other images"):
        train_and_evaluate(on_images(root), folder / "run")
