import numpy as np

from delg_jax.features.formats.image_order import best_first, spellings
from delg_jax.features.local_features import LocalFeatures


def test_a_name_may_lack_its_suffix_or_have_one():
    assert spellings("a/b") == ["a/b", "a/b.jpg", "a/b.jpeg", "a/b.png", "a/b.JPG"]
    assert spellings("b.png")[0] == "b.png"
    for name in ("b.png", "b.PNG", "b.webp", "b.JFIF"):
        assert spellings(name)[-1] == "b"
    assert spellings("b.c")[-1] == "b.c.JPG"
    assert "v1" not in spellings("v1.5")


def test_the_best_come_first_and_equals_keep_their_order():
    scores = np.array([1.0, 3.0, 1.0, 2.0, 3.0], np.float32)
    numbers = np.arange(5, dtype=np.float32)
    features = LocalFeatures(
        np.stack([numbers, numbers], axis=1), numbers, scores, numbers[:, None], np.ones(5, bool)
    )
    found = best_first(features)
    assert found.scores.tolist() == [3, 3, 2, 1, 1]
    assert found.scales.tolist() == [1, 4, 3, 0, 2]
    assert found.locations[:, 1].tolist() == found.descriptors[:, 0].tolist() == [1, 4, 3, 0, 2]


def test_no_features_stay_none():
    empty = LocalFeatures(*(np.zeros(shape) for shape in ((0, 2), 0, 0, (0, 4))), np.ones(0, bool))
    assert best_first(empty).descriptors.shape == (0, 4)
