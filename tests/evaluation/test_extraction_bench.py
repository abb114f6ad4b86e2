import numpy as np
import pytest

from delg_jax.evaluation import extraction_bench
from tests.tiny import random_variables


@pytest.mark.parametrize("size", ["gpu", "gpu_bfloat16"])
def test_the_sizes_of_accelerators_run_on_small_pictures(size):
    pytest.importorskip("torch", reason="the peer")
    numbers = {**extraction_bench.SIZES[size], "images": 1, "long": 64, "short": 48}
    pair = extraction_bench.pair("tiny", 3, np.random.default_rng(0), **numbers)
    for found, expected in zip(pair.ours.call(), pair.peer.call(), strict=True):
        assert found.global_descriptor @ expected.global_descriptor > 0.999
    assert pair.dtype == numbers["dtype"]


def test_operations_are_those_of_the_pixels_without_padding():
    module = extraction_bench.network("resnet18")
    variables = random_variables(module)
    asked = extraction_bench.settings(3, 32, "float32")
    asked.local_scales = asked.global_scales = (1.0,)
    whole = extraction_bench.operations(module, variables, asked, (224, 224))
    # ResNet-18 has 1.8e9 multiplications and additions at this size, some of them of padding;
    # the heads add theirs
    assert 2 * 1.6e9 < whole < 2 * 2.0e9
    part = extraction_bench.operations(module, variables, asked, (200, 224))
    assert part == pytest.approx(whole * 200 / 224)


def test_pyramids_are_the_papers():
    for _, scales in extraction_bench.VARIANTS.values():
        asked = extraction_bench.settings(scales, 32, "float32")
        assert len(asked.local_scales) == scales
        np.testing.assert_allclose(asked.global_scales, [2**-0.5, 1.0, 2**0.5], rtol=1e-6)
