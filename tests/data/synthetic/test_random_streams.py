import numpy as np
import pytest

from delg_jax.data.synthetic.random_streams import STREAMS, generator


def test_same_address_gives_the_same_draws():
    first, second = generator(7, "view", 3, 5).random(8), generator(7, "view", 3, 5).random(8)
    np.testing.assert_array_equal(first, second)


def test_every_address_has_its_own_stream():
    addresses = [(seed, stream, item) for seed in (0, 2**70) for stream in STREAMS
                 for item in range(5)]  # fmt: skip
    draws = {generator(*address).random() for address in addresses}
    assert len(draws) == len(addresses)


def test_unknown_stream_is_an_error():
    with pytest.raises(ValueError, match="weather"):
        generator(0, "weather", 1)
