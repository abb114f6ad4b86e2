import math

import numpy as np
import pytest

from delg_jax.evaluation import sparsity
from delg_jax.models import delg
from tests import tiny


@pytest.fixture(scope="module")
def network():
    module = delg.build(tiny.tiny_config().model)
    return module, tiny.random_variables(module)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)


def test_the_shares_are_those_of_the_maps(network, images):
    module, variables = network
    outputs = module.apply(variables, images.astype(np.float32))
    found = sparsity.activation_sparsity(*network, [images])
    assert found.keys() == {"conv4", "conv5"}
    for name, share in found.items():
        maps = np.asarray(getattr(outputs, name))
        assert share == pytest.approx(np.count_nonzero(maps == 0) / maps.size, abs=1e-6)
        assert 0 < share < 1


def test_batches_do_not_matter(network, images):
    whole = sparsity.activation_sparsity(*network, [images])
    parts = sparsity.activation_sparsity(*network, iter([images[:1], images[1:]]))
    assert parts == pytest.approx(whole, abs=1e-6)


def test_a_larger_image_weighs_more(network, images):
    small = images[:1, :32, :32]
    alone = [sparsity.activation_sparsity(*network, [side])["conv4"] for side in (images, small)]
    outputs = [network[0].apply(network[1], side.astype(np.float32)) for side in (images, small)]
    weights = [output.conv4.size for output in outputs]
    both = sparsity.activation_sparsity(*network, [images, small])["conv4"]
    assert both == pytest.approx(np.average(alone, weights=weights), abs=1e-6)
    assert weights[0] > weights[1]


def test_without_images_there_is_no_number(network):
    assert all(map(math.isnan, sparsity.activation_sparsity(*network, []).values()))
