import jax
import numpy as np
import pytest

from delg_jax.benchmarks import case
from delg_jax.benchmarks.cases import extract, train
from delg_jax.benchmarks.peers import pytorch
from delg_jax.benchmarks.peers.pytorch import TorchTrainer
from delg_jax.features import ExtractionSettings, Extractor
from delg_jax.models.variables import initialize
from delg_jax.training import optimizer, step
from tests.photographs import draw
from tests.tiny import random_variables


def test_takes_the_steps_that_ours_takes(rng):
    pytest.importorskip("torch", reason="the peer")
    module = train.network("tiny").clone(num_classes=3)
    variables = initialize(module, jax.random.key(0))
    images = rng.integers(0, 256, (2, 48, 48, 3), np.uint8)
    labels = np.array([0, 2], np.int32)
    tx = optimizer.create_optimizer(train._TRAIN)
    ours, losses = optimizer.create_state(variables, tx), []
    update = jax.jit(
        jax.vmap(
            lambda s, b: step.train_step(s, b, True, module, tx, train._WEIGHTS),
            in_axes=(None, 0),
            out_axes=(None, None),
            axis_name=step.AXIS,
        )
    )
    for _ in range(3):
        ours, metrics = update(ours, {"image": images[None], "label": labels[None]})
        losses.append(float(metrics["loss"]))
    peer = TorchTrainer(module, variables, train._WEIGHTS, train._RATE, train._CLIP, "float32")
    found = [peer(images, labels) for _ in range(3)]
    np.testing.assert_allclose(found, losses, rtol=2e-2)
    assert losses[0] != losses[2]


def in_place_order(local):
    """The features that there are, by scale and place: near scores may come in another order."""
    fields = [np.asarray(field)[local.mask] for field in local]
    places = np.round(np.column_stack([local.scales, local.locations])[local.mask], 2)
    return [field[np.lexsort(places.T)] for field in fields]


@pytest.mark.parametrize("backbone", ["tiny", "resnet50"])  # basic units, bottlenecks
def test_gives_the_features_of_our_extractor(backbone):
    pytest.importorskip("torch", reason="the peer")
    module = extract.network(backbone)
    variables = random_variables(module)
    asked = ExtractionSettings((0.7, 1.0), (1.0,), shape_step=32)
    picture = draw(0, 90, 61)
    (expected,) = Extractor(module, variables, asked)([picture])
    (found,) = pytorch.TorchExtractor(module, variables, asked)([picture])
    np.testing.assert_allclose(found.global_descriptor, expected.global_descriptor, atol=1e-3)
    assert expected.local.mask.sum() == 6 * 4 + 4 * 3
    pairs = zip(in_place_order(found.local), in_place_order(expected.local), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_best_features_of_all_scales_are_kept():
    pytest.importorskip("torch", reason="the peer")
    module = extract.network("tiny")
    variables = random_variables(module)
    asked = ExtractionSettings((0.7, 1.0), (1.0,), max_features=20, shape_step=32)
    (expected,) = Extractor(module, variables, asked)([draw(0, 90, 61)])
    (found,) = pytorch.TorchExtractor(module, variables, asked)([draw(0, 90, 61)])
    assert found.local.mask.sum() == 20
    np.testing.assert_allclose(found.local.scores, expected.local.scores, rtol=1e-3)


def test_pictures_of_one_size_are_computed_together_and_come_back_in_order():
    pytest.importorskip("torch", reason="the peer")
    module = extract.network("tiny")
    variables = random_variables(module)
    asked = ExtractionSettings((0.7, 1.0), (1.0,), shape_step=32)
    pictures = [draw(0, 90, 61), draw(1, 61, 90), draw(2, 90, 61), draw(3, 90, 61)]
    one, many = (
        pytorch.TorchExtractor(module, variables, asked, batch)(pictures) for batch in (1, 2)
    )
    for alone, together in zip(one, many, strict=True):
        np.testing.assert_allclose(together.global_descriptor, alone.global_descriptor, atol=1e-4)
        np.testing.assert_allclose(together.local.scores, alone.local.scores, rtol=1e-3)


def test_without_pytorch_there_is_no_peer(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(case.importlib, "import_module", absent)
    with pytest.raises(case.Unavailable, match=r"torch.*delg_jax\[bench\]"):
        case.import_peer("torch", "torch")
