"""Our Vision Transformers against those of Transformers and big_vision, with the same weights."""

import numpy as np
import pytest
from flax import traverse_util

from delg_jax.models.vit import VisionTransformer
from tests.models.vit_references import BLOCK, CASES, GOLDENS, inputs, transformers_maps
from tests.models.weights.foreign import converted, model_of


def assert_maps(given, name, expected, quick_jit):
    """Compares, for each image, S and D to 1e-5."""
    case = CASES[name]
    fields = {"conv4_stride": 8, "local_head": False, "whitening": False, "num_classes": 0}
    model = model_of(name, case.architecture.convention, **fields)
    variables = converted(case.source, given.theirs, model)
    network = VisionTransformer(name, BLOCK)
    apply = quick_jit(lambda image: network.apply({"params": variables["params"]["vit"]}, image))
    for image, maps in zip(given.images, expected, strict=True):
        found = apply(image[None])
        for key, values in zip(("conv4", "conv5"), maps, strict=True):
            assert np.std(values) > 0.1
            np.testing.assert_allclose(found[key][0], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_maps_are_those_that_were_computed_once(monkeypatch, quick_jit, name):
    given = inputs(name, monkeypatch)
    with np.load(GOLDENS) as goldens:
        keys = [[f"{name}/{n}/{key}" for key in ("conv4", "conv5")] for n in range(len(given[2]))]
        expected = [[goldens[key] for key in pair] for pair in keys]
    assert_maps(given, name, expected, quick_jit)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"big_vision"}))
def test_the_maps_are_those_of_transformers(monkeypatch, quick_jit, name):
    pytest.importorskip("torch", reason="Transformers needs torch")
    pytest.importorskip("transformers", reason="transformers is not installed")
    given = inputs(name, monkeypatch)
    assert_maps(given, name, list(transformers_maps(name, given)), quick_jit)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_variable_comes_from_the_file(monkeypatch, name):
    given, case = inputs(name, monkeypatch), CASES[name]
    fields = {"conv4_stride": 8, "local_head": False, "whitening": False, "num_classes": 0}
    model = model_of(name, case.architecture.convention, **fields)
    variables = traverse_util.flatten_dict(converted(case.source, given.theirs, model))
    assert set(variables) == set(given.ours)
    for path, values in variables.items():
        np.testing.assert_array_equal(values, given.ours[path], err_msg=str(path))
