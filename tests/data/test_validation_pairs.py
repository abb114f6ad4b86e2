import numpy as np
import pytest

from delg_jax.data import open_retrieval
from delg_jax.data.ground_truth import landmarks_of
from delg_jax.errors import UserError
from delg_jax.evaluation.pairs import draw
from tests.photographs import make_folder
from tests.tiny import training_config


def opened(root):
    config = training_config(root)
    return open_retrieval(config.data)


def test_each_class_gives_a_query_and_the_image_to_find(tmp_path):
    found = opened(make_folder(tmp_path, classes=3, train=1, validation=4))
    assert len(found.queries) == len(found.database) == 3
    labels = found.queries.labels.tolist()
    assert sorted(labels) == [0, 1, 2]
    assert set(found.queries.names).isdisjoint(found.database.names)
    for number, entry in enumerate(found.ground_truth):
        assert [found.database.labels[image] for image in entry["easy"]] == [labels[number]]
        assert entry["bbx"][2] > 0 < entry["bbx"][3]
    assert len(set(landmarks_of(found.ground_truth).tolist())) == 3
    pairs = draw(found.ground_truth, 3, 3, 6, seed=0)
    same = found.queries.labels[pairs.queries] == found.database.labels[pairs.images]
    np.testing.assert_array_equal(same, pairs.labels)


def test_the_images_are_the_same_each_time(tmp_path):
    root = make_folder(tmp_path, classes=3, train=1, validation=4)
    first, again = opened(root), opened(root)
    assert first.queries.names == again.queries.names
    assert first.database.names == again.database.names


def test_classes_of_one_image_and_damaged_queries_are_left_out(tmp_path):
    root = make_folder(tmp_path, classes=3, train=1, validation=2)
    (root / "validation" / "class_0" / "1.jpg").unlink()
    query = next(name for name in opened(root).queries.names if "class_2" in name)
    (root / "validation" / query).write_bytes(b"")
    assert [name.split("/")[0] for name in opened(root).queries.names] == ["class_1"]
    for name in ("class_1/0.jpg", "class_2/0.jpg"):
        (root / "validation" / name).unlink()
    with pytest.raises(UserError, match=r"config\.data\.name"):
        opened(root)
