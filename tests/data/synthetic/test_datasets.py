import dataclasses
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from delg_jax.data.synthetic import world
from delg_jax.data.synthetic.datasets import SyntheticConfig, SyntheticLandmarks, prepare
from delg_jax.data.synthetic.world import SPLITS, shots, world_size
from delg_jax.errors import UserError

# Mean colours of the queries of the tiny world 0
SEEN = [[94.2, 96.5, 96.0], [126.2, 128.2, 140.8], [112.0, 104.0, 104.5]]


def _builder(folder, seed):
    config = SyntheticConfig(name=f"tiny_{seed}", size="tiny", seed=seed)
    return SyntheticLandmarks(config=config, data_dir=folder)


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
    one, other = _examples(folder, 3, "query"), _examples(folder, seed, "query")
    assert one.keys() == other.keys()
    assert all(one[name]["image"] != other[name]["image"] for name in one)


def test_all_images_of_a_world_differ(folder):
    images = [e["image"] for split in SPLITS for e in _examples(folder, 3, split).values()]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("split", SPLITS)
def test_prepared_data_read_back_as_generated(builder, folder, split):
    expected = _examples(folder, 0, split)
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
    rule = r"prepared data = '.*tiny_0.*': has 3 images in query, not 6: another version"
    with pytest.raises(UserError, match=rule):
        prepare("tiny", 0, folder)


def test_other_views_need_another_version(folder):
    """Worlds that an earlier version rendered are used by the later ones of the same VERSION."""
    examples = _examples(folder, 0, "query").values()
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
