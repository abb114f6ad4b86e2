import itertools
import logging
import pickle

import numpy as np
import pytest

from configs import default
from delg_jax.data import TrainingData, exclusion, open_training
from delg_jax.data.sources import FileSource
from delg_jax.errors import UserError


class Ids:
    """Images named by ids, with digests, as a prepared source has them."""

    def __init__(self, names, labels):
        self.names, self.labels = names, np.array(labels, np.int64)
        self.digests = [f"digest of {name}" for name in names]

    def __len__(self):
        return len(self.names)

    def read(self, index):
        return self.names[index].encode()

    def stamps(self, indices):
        return np.zeros((len(indices), 3), np.int64)


CLASSES = ["7", "17", "27"]


def data():
    train = Ids(["a1", "a2", "b1", "c1", "c2"], [0, 0, 1, 2, 2])
    return TrainingData(train, Ids(["a3", "b2", "c3"], [0, 1, 2]), CLASSES)


def listed(tmp_path, *lines):
    path = tmp_path / "exclude.txt"
    path.write_text("\n".join(lines))
    return str(path)


def contents(found):
    sources = (found.train, found.validation)
    return [
        [
            (source.read(i).decode(), found.classes[label])
            for i, label in enumerate(source.labels.tolist())
        ]
        for source in sources
    ]


@pytest.mark.parametrize("line", ["17", "landmark:17"])
def test_a_landmark_is_left_out_and_labels_close_the_gap(tmp_path, line):
    found = exclusion.exclude(data(), listed(tmp_path, "# buildings of Oxford", "", line))
    assert found.classes == ["7", "27"]
    assert contents(found) == [
        [("a1", "7"), ("a2", "7"), ("c1", "27"), ("c2", "27")],
        [("a3", "7"), ("c3", "27")],
    ]
    assert found.train.digests[2] == "digest of c1"
    assert contents(pickle.loads(pickle.dumps(found))) == contents(found)


@pytest.mark.parametrize("line", ["a1", "image:a1", "a1.jpg", "train/a/1/a1.jpg"])
def test_an_image_is_left_out(tmp_path, line):
    found = exclusion.exclude(data(), listed(tmp_path, line, "c3"))
    assert found.classes == CLASSES
    assert found.train.names == ["a2", "b1", "c1", "c2"]
    assert found.validation.names == ["a3", "b2"]


def test_a_landmark_without_training_images_is_no_class(tmp_path):
    found = exclusion.exclude(data(), listed(tmp_path, "b1"))
    assert found.classes == ["7", "27"]
    assert found.validation.names == ["a3", "c3"]


def test_names_with_folders_are_taken_whole(tmp_path):
    for split, label in itertools.product(("train", "validation"), "ab"):
        (tmp_path / "root" / split / label).mkdir(parents=True)
        for name in ("1.jpg", "2.jpg"):
            (tmp_path / "root" / split / label / name).touch()
    settings = default.get_config().data
    settings.name, settings.root = "folder", str(tmp_path / "root")
    whole = open_training(settings)
    first = whole.train.names[0]
    settings.exclude = listed(tmp_path, f"{first}{whole.train.suffix}")
    found = open_training(settings)
    assert isinstance(found.train, FileSource)
    assert found.train.names == whole.train.names[1:]
    settings.exclude = listed(tmp_path, first.rpartition("/")[2])
    with pytest.raises(UserError, match=r"config\.data\.exclude = .*neither"):
        open_training(settings)


def test_lines_of_other_data_are_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="delg_jax"):
        exclusion.exclude(data(), listed(tmp_path, "a1", "unknown", "image:7"))
    assert "2 of 3" in caplog.text


@pytest.mark.parametrize(
    ("lines", "word"),
    [(["unknown"], "neither"), (["7", "17", "27"], "train"), (None, "No such file")],
)
def test_a_list_that_cannot_be_meant_or_is_absent_is_refused(tmp_path, lines, word):
    path = str(tmp_path / "absent") if lines is None else listed(tmp_path, *lines)
    with pytest.raises(UserError, match=rf"config\.data\.exclude = .*{word}"):
        exclusion.exclude(data(), path)


def test_a_name_that_could_be_both_is_refused(tmp_path):
    train = Ids(["7", "b"], [0, 1])
    both = TrainingData(train, Ids([], []), ["7", "17"])
    with pytest.raises(UserError, match="line 1.*landmark:7 or image:7"):
        exclusion.exclude(both, listed(tmp_path, "7"))
    assert exclusion.exclude(both, listed(tmp_path, "image:7")).classes == ["17"]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "exclude.txt"
    path.write_text(exclusion.listing(["a1", "c2"], "of two pictures"))
    assert exclusion.exclude(data(), str(path)).train.names == ["a2", "b1", "c1"]
