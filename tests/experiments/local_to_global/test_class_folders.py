import json

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.data import open_retrieval
from experiments.local_to_global import class_folders
from tests.photographs import draw, make_folder, save
from tests.tiny import retrieval_config


def test_queries_find_the_images_of_their_class(tmp_path):
    root = make_folder(tmp_path / "classes", classes=3, train=2, validation=1)
    save(root / "validation" / "unknown" / "0.jpg", draw(1, 40, 60))
    output = tmp_path / "retrieval"
    flags = [f"--root={root}", f"--output={output}"]
    assert run_experiment(class_folders, flags) == 0
    assert run_experiment(class_folders, flags) == 0  # again
    data = open_retrieval(retrieval_config(output).data)
    assert data.database.names[0] == "train/class_0/0"
    assert data.queries.names == [f"validation/class_{n}/0" for n in range(3)]
    assert [entry["easy"] for entry in data.ground_truth] == [[0, 1], [2, 3], [4, 5]]
    assert [entry["landmark"] for entry in data.ground_truth] == ["class_0", "class_1", "class_2"]
    assert data.ground_truth[0]["bbx"] == [0, 0, 96, 80]
    assert data.queries.read(1) == (root / "validation" / "class_1" / "0.jpg").read_bytes()
    content = json.loads((output / "gnd_classes.json").read_text())
    assert len(content["imlist"]) == 6


@pytest.mark.parametrize("flags", [["--root="], ["--root={}"], ["--root={}", "--output=x"]])
def test_a_folder_without_classes_is_refused(tmp_path, capsys, flags):
    assert run_experiment(class_folders, [flag.format(tmp_path) for flag in flags]) == 2
    assert "--" in capsys.readouterr().err
