import json

import pytest

from delg_jax.cli.main import main
from delg_jax.data import PURPOSES, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import make_gldv2, settings
from tests.photographs import make_folder


@pytest.fixture
def root(tmp_path):
    make_gldv2(tmp_path / "raw")
    return tmp_path / "raw"


def run(root, tmp_path, name, *flags):
    data = [f"--config.data.{field}={value}" for field, value in (("name", name), ("root", root))]
    return main(
        ["prepare", "--config=default", *data, f"--config.data.tfds_dir={tmp_path}", *flags]
    )


def test_training_data_are_prepared_and_used_afterwards(root, tmp_path, capsys):
    assert run(root, tmp_path / "tfds", "gldv2_clean") == 0
    line = "gldv2_clean: 11 training images of 3 classes, 3 validation images, prepared\n"
    assert capsys.readouterr().out == line
    folders = {path.parent.name for path in (tmp_path / "tfds").rglob("manifest.json")}
    assert folders == {"1.0.0"}
    (root / "train" / "images_000.tar").unlink()
    assert run("", tmp_path / "tfds", "gldv2_clean") == 0  # without a root, nothing is compared
    assert capsys.readouterr().out == line
    assert run(root, tmp_path / "tfds", "gldv2_clean") == 2
    assert "images_000.tar is absent" in capsys.readouterr().err


def test_the_purpose_decides_which_parts_are_prepared(root, tmp_path, capsys):
    assert run(root, tmp_path, "gldv2", "--purpose=retrieval") == 0
    assert capsys.readouterr().out == "gldv2: 4 database images, 1 queries, prepared\n"
    found = {json.loads(path.read_text())["splits"][0]["name"] for path in listed(tmp_path)}
    assert found == {"index", "test"}
    assert run(root, tmp_path, "gldv2_clean_recognition") == 0
    assert capsys.readouterr().out.startswith("gldv2_clean_recognition: 14 database images")


def listed(folder):
    return folder.rglob("dataset_info.json")


def test_a_folder_that_is_read_in_place_is_only_checked(tmp_path, capsys):
    make_folder(tmp_path / "photographs")
    assert run(tmp_path / "photographs", tmp_path / "tfds", "folder") == 0
    assert capsys.readouterr().out.endswith(" validation images, read in place\n")
    assert not (tmp_path / "tfds").exists()


def test_a_failed_preparation_is_one_line(root, tmp_path, capsys):
    assert run(root, tmp_path, "gldv2_clean", "--purpose=retrieval") == 2
    assert "config.data.name = 'gldv2_clean': " in capsys.readouterr().err
    assert run(root / "absent", tmp_path, "gldv2_clean") == 2
    assert f"config.data.root = '{root / 'absent'}': " in capsys.readouterr().err
    with pytest.raises(UserError, match="purpose = 'both': "):
        prepare(settings(root, tmp_path, "gldv2"), "both")
    assert PURPOSES == ("training", "retrieval")
