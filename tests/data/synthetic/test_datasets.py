import dataclasses
import functools
import io
import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import default
from delg_jax.data import DataSettings
from delg_jax.data.synthetic import ground_truth, retrieval, source, training, world
from delg_jax.data.synthetic.camera import homography_between, look_at
from delg_jax.data.synthetic.datasets import (
    EASY_SCALE,
    EASY_TILT,
    EASY_VISIBLE,
    JUNK_VISIBLE,
    SyntheticConfig,
    SyntheticLandmarks,
    prepare,
    relevance,
    scale_and_tilt,
)
from delg_jax.data.synthetic.world import SPLITS, shots, world_size
from delg_jax.errors import UserError

# Mean colours of the queries of the tiny world 0
SEEN = [[94.2, 96.5, 96.0], [126.2, 128.2, 140.8], [112.0, 104.0, 104.5]]


def _builder(folder, seed):
    config = SyntheticConfig(name=f"tiny_{seed}", size="tiny", seed=seed)
    return SyntheticLandmarks(config=config, data_dir=folder)


@functools.cache  # rendering takes most of the time
def _rendered(folder, seed, split):
    return _examples(folder, seed, split)


def _examples(folder, seed, split):
    return dict(_builder(folder, seed)._generate_examples(split))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def builder(folder):
    return prepare("tiny", 0, folder)


def test_a_seed_gives_the_same_bytes_in_any_order(folder):
    query_first = {split: _examples(folder, 3, split) for split in ("query", "index")}
    index_first = {split: _examples(folder, 3, split) for split in ("index", "query")}
    for split, examples in query_first.items():
        for name, example in examples.items():
            assert example["image"] == index_first[split][name]["image"]
            np.testing.assert_array_equal(
                example["homography"], index_first[split][name]["homography"]
            )


@pytest.mark.parametrize("seed", [4, 2**40])
def test_another_seed_is_another_world(folder, seed):
    one, other = _rendered(folder, 3, "query"), _rendered(folder, seed, "query")
    assert one.keys() == other.keys()
    assert all(one[name]["image"] != other[name]["image"] for name in one)


def test_all_images_of_a_world_differ(folder):
    images = [e["image"] for split in SPLITS for e in _rendered(folder, 3, split).values()]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("split", SPLITS)
def test_prepared_data_read_back_as_generated(builder, folder, split):
    expected = _rendered(folder, 0, split)
    decoders = {"image": tfds.decode.SkipDecoding()}
    records = list(builder.as_data_source(split, decoders=decoders))
    assert len(records) == len(shots(world_size("tiny"), split))
    for record in records:
        example = expected[record["name"].decode()]
        assert record["image"] == example["image"]
        assert record["label"] == example["label"]
        np.testing.assert_array_equal(record["homography"], example["homography"])
        np.testing.assert_array_equal(record["bbx"], example["bbx"])
        assert record["visible"] == pytest.approx(example["visible"])
        image = Image.open(io.BytesIO(record["image"]))
        assert (image.format, image.mode, max(image.size)) == ("JPEG", "RGB", 64)


def test_labels_are_dense_for_training_and_others_for_evaluation(builder):
    decoders = {"image": tfds.decode.SkipDecoding()}
    labels = {
        split: {int(record["label"]) for record in builder.as_data_source(split, decoders=decoders)}
        for split in SPLITS
    }
    assert labels["train"] == labels["validation"] == set(range(len(labels["train"])))
    assert not labels["train"] & (labels["index"] | labels["query"])
    assert labels["query"] < labels["index"]


def test_prepare_reuses_what_is_there(builder, folder, monkeypatch):
    def fail(self, split):
        raise AssertionError("rendered again")

    monkeypatch.setattr(SyntheticLandmarks, "_generate_examples", fail)
    again = prepare("tiny", 0, folder)
    assert again.data_path == builder.data_path


def test_a_world_of_other_numbers_is_refused(builder, folder, monkeypatch):
    more = dataclasses.replace(world.SIZES["tiny"], query_views=2)
    monkeypatch.setitem(world.SIZES, "tiny", more)
    with pytest.raises(UserError, match="prepared data = '.*tiny_0.*': .*3 images in query.* 6"):
        prepare("tiny", 0, folder)


def test_other_views_need_another_version(folder):
    """Worlds that an earlier version rendered are used by the later ones of the same VERSION."""
    examples = _rendered(folder, 0, "query").values()
    images = [Image.open(io.BytesIO(example["image"])).resize((2, 2)) for example in examples]
    means = [np.asarray(image).mean(axis=(0, 1)) for image in images]
    assert str(SyntheticLandmarks.VERSION) == "1.0.0"
    np.testing.assert_allclose(means, SEEN, atol=4)


def test_an_interrupted_preparation_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    generate = SyntheticLandmarks._generate_examples

    def interrupted(self, split):
        if split == "index":
            raise KeyboardInterrupt
        yield from generate(self, split)

    with monkeypatch.context() as patch:
        patch.setattr(SyntheticLandmarks, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare("tiny", 0, str(tmp_path))
    assert not (tmp_path / "synthetic_landmarks" / "tiny_0" / "1.0.0").exists()
    assert prepare("tiny", 0, str(tmp_path)).info.splits["query"].num_examples == 3


@pytest.mark.parametrize(
    ("size", "seed", "field"), [("huge", 0, "size = 'huge'"), ("tiny", -1, "seed = -1")]
)
def test_wrong_worlds_are_user_errors(tmp_path, size, seed, field):
    with pytest.raises(UserError, match=rf"config\.data\.synthetic\.{field}"):
        prepare(size, seed, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def data(folder, builder):
    settings = DataSettings.of(default.get_config().data)
    return dataclasses.replace(settings, tfds_dir=folder, synthetic_size="tiny")


def test_training_classes_are_the_landmarks(data):
    opened = training(data)
    assert set(opened.train.labels) == set(opened.validation.labels) == {0, 1, 2, 3}
    assert opened.classes[2] == "landmark0002"
    assert all(
        name.startswith(opened.classes[label])
        for name, label in zip(opened.train.names, opened.train.labels, strict=True)
    )


def test_retrieval_has_truth_for_each_query(data):
    opened = retrieval(data)
    assert (len(opened.database), len(opened.queries)) == (28, 3)
    assert len(opened.ground_truth) == 3
    positions = opened.ground_truth[0]["easy"] + opened.ground_truth[0]["hard"]
    assert {opened.database.labels[p] for p in positions} == {opened.queries.labels[0]}


def test_unknown_size_is_a_user_error(data):
    with pytest.raises(UserError, match="huge"):
        training(dataclasses.replace(data, synthetic_size="huge"))


BOX = np.array([20.0, 10, 140, 110])


def _view(yaw=0.0, scale=1.0, roll=0.0):
    target = np.array([80.0, 60, 0])
    camera = look_at(target, (yaw, 0, roll), 1000 / scale, 1000.0, (160, 120))
    return camera.facade_homography()


@pytest.mark.parametrize("roll", [0.0, 0.7])
@pytest.mark.parametrize(("yaw", "scale"), [(0.0, 1.0), (0.5, 1.0), (-0.8, 2.0), (0.3, 0.4)])
def test_scale_and_tilt_of_an_oblique_view(yaw, scale, roll):
    between = homography_between(_view(), _view(yaw, scale, roll))
    measured = scale_and_tilt(between, np.array([80.0, 60.0]))
    squeeze = np.cos(yaw)  # a plane seen at an angle is narrower by its cosine
    np.testing.assert_allclose(measured, (scale * np.sqrt(squeeze), 1 / squeeze), rtol=1e-3)


def test_a_point_behind_the_other_camera_has_no_scale():
    away = np.diag([1.0, 1.0, -1.0])
    assert np.isnan(scale_and_tilt(away, np.array([3.0, 4.0]))).all()


@pytest.mark.parametrize(
    ("index", "visible", "expected"),
    [
        (_view(), 1.0, "easy"),
        (_view(roll=1.0), EASY_VISIBLE, "easy"),
        (_view(), EASY_VISIBLE - 0.01, "hard"),
        (_view(), JUNK_VISIBLE, "hard"),
        (_view(), JUNK_VISIBLE - 0.01, "junk"),
        (_view(yaw=np.arccos(1 / EASY_TILT) - 0.02), 1.0, "easy"),
        (_view(yaw=np.arccos(1 / EASY_TILT) + 0.02), 1.0, "hard"),
        (_view(scale=EASY_SCALE * 0.98), 1.0, "easy"),
        (_view(scale=EASY_SCALE * 1.02), 1.0, "hard"),
        (_view(scale=0.98 / EASY_SCALE), 1.0, "hard"),
        (np.diag([1.0, 1.0, -1.0]), 1.0, "hard"),
    ],
)
def test_relevance(index, visible, expected):
    assert relevance(_view(), BOX, index, visible) == expected


@pytest.fixture(scope="module", params=[0, 1, 12345])
def builder_of_each_seed(request, folder):
    return prepare("tiny", request.param, folder)


def test_fields_follow_the_same_order(builder_of_each_seed):
    index = source(builder_of_each_seed, "index")
    assert len(index) == len(index.names) == len(index.labels) == len(index.boxes)
    assert len(index) == len(index.homographies) == len(index.visible)
    for name, label in zip(index.names, index.labels, strict=True):
        assert name.startswith(f"landmark{label:04d}_")


def test_reading_is_random_access_and_survives_pickling(builder_of_each_seed):
    train = source(builder_of_each_seed, "train")
    backwards = [train.read(i) for i in reversed(range(len(train)))]
    copy = pickle.loads(pickle.dumps(train))
    assert backwards[::-1] == [copy.read(i) for i in range(len(copy))]
    assert copy.names == train.names
    assert backwards[0][:2] == b"\xff\xd8"  # JPEG


def test_ground_truth_has_the_revisited_layout_in_plain_types(builder_of_each_seed):
    truth = ground_truth(builder_of_each_seed)
    assert set(truth) == {"imlist", "qimlist", "gnd"}
    assert json.loads(json.dumps(truth)) == truth
    assert truth["imlist"] == source(builder_of_each_seed, "index").names
    assert truth["qimlist"] == source(builder_of_each_seed, "query").names
    assert len(truth["gnd"]) == len(truth["qimlist"])


def test_each_query_has_easy_and_hard_images_of_its_landmark(builder_of_each_seed):
    truth = ground_truth(builder_of_each_seed)
    index, query = source(builder_of_each_seed, "index"), source(builder_of_each_seed, "query")
    for label, entry in zip(query.labels, truth["gnd"], strict=True):
        parts = [entry["easy"], entry["hard"], entry["junk"]]
        assert entry["easy"]
        assert entry["hard"]
        together = sum(parts, [])
        assert len(set(together)) == len(together)
        assert sorted(together) == np.flatnonzero(index.labels == label).tolist()


def test_query_boxes_lie_in_the_image(builder_of_each_seed):
    for entry in ground_truth(builder_of_each_seed)["gnd"]:
        x1, y1, x2, y2 = entry["bbx"]
        assert 0 <= x1 < x2 <= 64
        assert 0 <= y1 < y2 <= 64
