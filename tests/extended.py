"""Uses the additions of docs/extending.md; `test_extending.py` runs this on a changed copy."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import delg_jax
from configs import default
from delg_jax import losses
from delg_jax.data import open_training
from delg_jax.errors import UserError
from delg_jax.models.resnet import ResNet
from delg_jax.training import checks
from tests import tiny
from tests.photographs import make_revisited


def refuses(call, *words):
    """Whether a call raises a UserError that says all of the words."""
    try:
        call()
    except UserError as error:
        return all(word in str(error) for word in words)
    return False


def backbone():
    """ResNet-34 has the 21,284,672 weights of torchvision's, without its classifier."""
    network = ResNet("resnet34", "torchvision", 32)
    image = np.zeros((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda key: network.init(key, image, None), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 21_284_672


def loss():
    """The margin moves the true class alone, and the field reaches the loss and is checked."""
    cosines = jnp.asarray([[0.5, 0.2], [0.1, -0.9]])
    moved = losses.add_margin(cosines, jnp.asarray([0, 1]), 0.3, "cosine")
    np.testing.assert_allclose(moved, [[0.2, 0.2], [0.1, -1.2]], atol=1e-6)
    config = default.get_config()
    assert losses.LossWeights.of(config.train).form == "angle"
    config.train.margin_form = "cosine"
    assert losses.LossWeights.of(config.train).form == "cosine"
    checks.check_fields(config)
    config.train.margin_form = "sine"
    assert refuses(lambda: checks.check_fields(config), "train.margin_form", "sine")


def reranker(folder):
    """The method is evaluated, and orders a short list as NumPy does."""
    from delg_jax.rerank import centering

    rng = np.random.default_rng(0)
    queries, database = rng.normal(size=(3, 4)), rng.normal(size=(7, 4))
    ranks = np.tile(np.arange(7), (3, 1))
    found = centering.rerank(queries, database, ranks, 5, query_block=2)
    for query, row in zip(queries, found, strict=True):
        mean = database[:5].mean(axis=0)
        images, centred = database[:5] - mean, query - mean
        scores = images @ centred / np.linalg.norm(images, axis=1)
        np.testing.assert_array_equal(row, [*np.argsort(-scores), 5, 6])

    config = tiny.retrieval_config(make_revisited(folder / "photographs")).unlock()
    config.eval.methods = ("global", "global+centering")
    result = delg_jax.evaluate(config, folder / "evaluated")
    assert set(result["methods"]) == {"global", "global+centering"}
    config.rerank.centering.short_list = 0
    wrong = lambda: delg_jax.evaluate(config, folder / "refused")  # noqa: E731
    assert refuses(wrong, "rerank.centering.short_list", "0")


def data_set(folder):
    """Tables give images and classes; a label that training lacks is refused."""
    (folder / "a.jpg").write_bytes(b"bytes of a")
    (folder / "train.csv").write_text("a.jpg,tower\nb.jpg,bridge\n")
    (folder / "validation.csv").write_text("c.jpg,tower\n")
    config = default.get_config()
    config.data.name, config.data.root = "table", str(folder)
    data = open_training(config.data)
    assert data.classes == ["bridge", "tower"]
    assert data.train.labels.tolist() == [1, 0]
    assert data.train.read(0) == b"bytes of a"
    (folder / "validation.csv").write_text("c.jpg,church\n")
    assert refuses(lambda: open_training(config.data), "validation.csv", "church")


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    assert place in pathlib.Path(delg_jax.__file__).parents, "not the changed copy"
    backbone()
    loss()
    reranker(place)
    data_set(place)
    sys.stdout.write("all four work")
