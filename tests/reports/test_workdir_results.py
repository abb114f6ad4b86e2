import json
import shutil

import numpy as np
import pytest

from delg_jax import workdir as outputs
from delg_jax.data.tfds_builders import gldv2_files
from delg_jax.errors import UserError
from delg_jax.evaluation.experiment import sources
from delg_jax.reports.workdir_results import read
from tests.data.tfds_builders.published import make_gldv2
from tests.folders import contents
from tests.reports import workdirs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    return workdirs.make(root / "run", root / "data")


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def change_config(folder, change):
    path = folder / "evaluation" / "config.json"
    content = json.loads(path.read_text())
    change(content["config"])
    outputs.write_json(path, content)


def test_a_whole_workdir_is_read_and_not_touched(folder):
    before = contents(folder)
    run = read(folder)
    assert contents(folder) == before
    assert run.notes == []
    assert run.names == ([f"query{i}" for i in range(4)], run.database.names)
    assert set(run.rankings) == {"global", "global+sp", "local"}
    assert set(run.rankings["global+sp"]) == {"all", "easy", "medium", "hard"}
    assert run.config.extract.local_scales == (1.0, 1.4142135)
    assert len(run.data.ground_truth) == 4


def test_without_the_data_set_names_come_from_the_features(folder, tmp_path):
    change_config(folder, lambda config: config.update({"data.root": str(tmp_path / "gone")}))
    run = read(folder)
    assert run.data is None
    assert run.names[0] == [f"query{i}" for i in range(4)]
    assert len(run.rankings) == 3
    (note,) = run.notes
    assert "cannot be opened" in note
    assert "gone" in note


def test_a_data_set_that_moved_is_found(folder, whole):
    change_config(folder, lambda config: config.update({"data.root": "gone"}))
    assert read(folder, str(whole.parent / "data")).notes == []


@pytest.mark.parametrize("name", ["gldv2", "gldv2_recognition", "gldv2_clean_recognition"])
def test_no_download_is_begun(folder, tmp_path, monkeypatch, name):
    def download(*arguments):
        raise AssertionError(f"downloads {arguments}")

    monkeypatch.setattr(gldv2_files, "download", download)
    change = {"data.name": name, "data.root": "", "data.tfds_dir": str(tmp_path / "tfds")}
    change_config(folder, lambda config: config.update(change))
    run = read(folder)
    assert run.data is None
    assert "cannot be opened" in run.notes[0]


def test_google_landmarks_that_are_prepared_are_opened_without_their_folder(folder, tmp_path):
    make_gldv2(tmp_path / "raw", 0)
    change = {"data.name": "gldv2", "data.root": str(tmp_path / "raw")}
    change |= {"data.tfds_dir": str(tmp_path / "tfds"), "data.ground_truth": ""}
    change_config(folder, lambda config: config.update(change))
    assert not any("cannot be opened" in note for note in read(folder).notes)
    (tmp_path / "raw").rename(tmp_path / "gone")
    assert not any("cannot be opened" in note for note in read(folder).notes)


def test_an_older_configuration_is_named_as_one(folder):
    change_config(folder, lambda config: config.pop("data.root"))
    (note,) = read(folder).notes
    assert "another version" in note
    assert "without root" in note


def test_other_images_than_were_evaluated_are_not_shown(folder, whole, tmp_path):
    shutil.copytree(whole.parent / "data", tmp_path / "data")
    path = tmp_path / "data" / "gnd_drawn.json"
    content = json.loads(path.read_text())
    content["imlist"].reverse()
    path.write_text(json.dumps(content))
    run = read(folder, str(tmp_path / "data"))
    assert run.data is None
    assert "other images" in run.notes[0]


def test_lost_features_and_configurations_are_noted(folder):
    shutil.rmtree(folder / "features" / "queries")
    run = read(folder)
    assert run.queries is run.database is None
    assert len(run.rankings) == 3
    assert "matches are not shown" in run.notes[0]
    (folder / "evaluation" / "config.json").unlink()
    run = read(folder)
    assert run.config is None
    assert run.rankings == {}
    assert "configuration" in run.notes[0]


@pytest.mark.parametrize("images", [9, 8])
def test_rankings_that_do_not_fit_are_refused(folder, images):
    ranking = np.full((4, images), 8, np.int32)  # there is no image 8
    outputs.write_arrays(folder / "rankings.npz", {"global": ranking})
    run = read(folder)
    assert run.rankings == {}
    assert "does not rank 8 images of 4 queries" in run.notes[0]


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 no archive", b"text"])
def test_damaged_rankings_are_noted(folder, content):
    (folder / "rankings.npz").write_bytes(content)
    run = read(folder)
    assert run.rankings == {}
    assert "rankings cannot be read" in run.notes[0]


def test_a_folder_of_training_only_and_damaged_metrics(tmp_path):
    assert read(tmp_path).metrics == {}
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="metrics.json"):
        read(tmp_path)


def test_features_and_truth_that_are_others_than_evaluated_are_not_shown(folder):
    run = read(folder)
    assert run.notes == []
    evaluation, made_from = (
        folder / "evaluation",
        sources(run.database, run.queries, run.data),
    )
    outputs.Output.of(evaluation, run.config, ("eval",)).describe(made_from)
    assert read(folder).notes == []
    assert read(folder).database is not None
    other = made_from | {"database": "of before"}
    outputs.Output.of(evaluation, run.config, ("eval",)).describe(other)
    changed = read(folder)
    assert changed.database is None
    assert changed.queries is None
    assert "The features changed since the evaluation" in changed.notes[0]
    other = made_from | {"ground_truth": "of before"}
    outputs.Output.of(evaluation, run.config, ("eval",)).describe(other)
    changed = read(folder)
    assert changed.data is None
    assert changed.database is not None
    assert "The ground truth changed since the evaluation" in changed.notes[0]
