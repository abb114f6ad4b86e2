import json
import pickle

import numpy as np
import pytest

from delg_jax.data.synthetic import ground_truth, prepare, source


@pytest.fixture(scope="module", params=[0, 1, 12345])
def builder(request, tmp_path_factory):
    return prepare("tiny", request.param, str(tmp_path_factory.mktemp("tfds")))


def test_fields_follow_the_same_order(builder):
    index = source(builder, "index")
    assert len(index) == len(index.names) == len(index.labels) == len(index.boxes)
    assert len(index) == len(index.homographies) == len(index.visible)
    for name, label in zip(index.names, index.labels, strict=True):
        assert name.startswith(f"landmark{label:04d}_")


def test_reading_is_random_access_and_survives_pickling(builder):
    train = source(builder, "train")
    backwards = [train.read(i) for i in reversed(range(len(train)))]
    copy = pickle.loads(pickle.dumps(train))
    assert backwards[::-1] == [copy.read(i) for i in range(len(copy))]
    assert copy.names == train.names
    assert backwards[0][:2] == b"\xff\xd8"  # JPEG


def test_ground_truth_has_the_revisited_layout_in_plain_types(builder):
    truth = ground_truth(builder)
    assert set(truth) == {"imlist", "qimlist", "gnd"}
    assert json.loads(json.dumps(truth)) == truth
    assert truth["imlist"] == source(builder, "index").names
    assert truth["qimlist"] == source(builder, "query").names
    assert len(truth["gnd"]) == len(truth["qimlist"])


def test_each_query_has_easy_and_hard_images_of_its_landmark(builder):
    truth = ground_truth(builder)
    index, query = source(builder, "index"), source(builder, "query")
    for label, entry in zip(query.labels, truth["gnd"], strict=True):
        parts = [entry["easy"], entry["hard"], entry["junk"]]
        assert entry["easy"]
        assert entry["hard"]
        together = sum(parts, [])
        assert len(set(together)) == len(together)
        assert sorted(together) == np.flatnonzero(index.labels == label).tolist()


def test_query_boxes_lie_in_the_image(builder):
    for entry in ground_truth(builder)["gnd"]:
        x1, y1, x2, y2 = entry["bbx"]
        assert 0 <= x1 < x2 <= 64
        assert 0 <= y1 < y2 <= 64
