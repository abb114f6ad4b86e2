"""Our extractor and the benchmark's peer, on the same weights and pictures."""

import numpy as np
import pytest

from delg_jax.benchmarks import case
from delg_jax.benchmarks.baselines import torch_extraction
from delg_jax.benchmarks.cases import extract
from delg_jax.features import Extractor
from tests.photographs import draw
from tests.tiny import random_variables


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
    asked = extract.settings(7, 32, "float32")
    asked.local_scales, asked.global_scales = (0.7, 1.0), (1.0,)
    picture = draw(0, 90, 61)
    (expected,) = Extractor(module, variables, asked)([picture])
    (found,) = torch_extraction.TorchExtractor(module, variables, asked)([picture])
    np.testing.assert_allclose(found.global_descriptor, expected.global_descriptor, atol=1e-3)
    assert expected.local.mask.sum() == 6 * 4 + 4 * 3
    pairs = zip(in_place_order(found.local), in_place_order(expected.local), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_best_features_of_all_scales_are_kept():
    pytest.importorskip("torch", reason="the peer")
    module = extract.network("tiny")
    variables = random_variables(module)
    asked = extract.settings(7, 32, "float32")
    asked.local_scales, asked.global_scales, asked.max_features = (0.7, 1.0), (1.0,), 20
    (expected,) = Extractor(module, variables, asked)([draw(0, 90, 61)])
    (found,) = torch_extraction.TorchExtractor(module, variables, asked)([draw(0, 90, 61)])
    assert found.local.mask.sum() == 20
    np.testing.assert_allclose(found.local.scores, expected.local.scores, rtol=1e-3)


def test_pictures_of_one_size_are_computed_together_and_come_back_in_order():
    pytest.importorskip("torch", reason="the peer")
    module = extract.network("tiny")
    variables = random_variables(module)
    asked = extract.settings(7, 32, "float32")
    asked.local_scales, asked.global_scales = (0.7, 1.0), (1.0,)
    pictures = [draw(0, 90, 61), draw(1, 61, 90), draw(2, 90, 61), draw(3, 90, 61)]
    one, many = (
        torch_extraction.TorchExtractor(module, variables, asked, batch)(pictures)
        for batch in (1, 2)
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
