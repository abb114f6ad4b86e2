import numpy as np
import pytest

from delg_jax.benchmarks.cases import extract
from delg_jax.features import ExtractionSettings
from tests.tiny import random_variables


@pytest.mark.parametrize("size", ["gpu", "gpu_float32"])
def test_the_sizes_of_accelerators_run_on_small_pictures(size):
    pytest.importorskip("torch", reason="the peer")
    numbers = {**extract.SIZES[size], "images": 2, "long": 64, "short": 48}
    comparison = extract.compare("tiny", 3, np.random.default_rng(0), **numbers)
    expected = comparison.ours.call()
    for make in comparison.peers.values():
        for found, ours in zip(make().call(), expected, strict=True):
            assert found.global_descriptor @ ours.global_descriptor > 0.999
    assert comparison.work.dtype == numbers["dtype"]


def test_operations_are_those_of_the_pixels_without_padding():
    module = extract.network("resnet18")
    variables = random_variables(module)
    asked = ExtractionSettings((1.0,), (1.0,), shape_step=32)
    whole = extract.operations(module, variables, asked, (224, 224))
    # ResNet-18 has 1.8e9 multiplications and additions at this size, some of them of padding;
    # the heads add theirs
    assert 2 * 1.6e9 < whole < 2 * 2.0e9
    part = extract.operations(module, variables, asked, (200, 224))
    assert part == pytest.approx(whole * 200 / 224)


def test_pyramids_are_the_papers():
    for _, scales in extract.VARIANTS.values():
        asked = extract.settings(scales, 32, "float32")
        assert len(asked.local_scales) == scales
        np.testing.assert_allclose(asked.global_scales, [2**-0.5, 1.0, 2**0.5], rtol=1e-6)
