import numpy as np
import pytest

from delg_jax.data.synthetic.render import KINDS
from delg_jax.data.synthetic.world import SIZES, SPLITS, STREAMS, generator, shots, world_size
from delg_jax.errors import UserError

sizes = pytest.mark.parametrize("size", sorted(SIZES))


def _landmarks(size, split):
    return {shot.landmark for shot in shots(world_size(size), split)}


@sizes
def test_training_and_evaluation_share_no_landmark(size):
    train = _landmarks(size, "train")
    assert train == _landmarks(size, "validation") == set(range(world_size(size).train))
    assert not train & (_landmarks(size, "index") | _landmarks(size, "query"))


@sizes
def test_names_and_views_are_unique_in_the_world(size):
    everything = [shot for split in SPLITS for shot in shots(world_size(size), split)]
    assert len({shot.name for shot in everything}) == len(everything)
    assert {shot.kind for shot in everything} <= set(KINDS)


@sizes
def test_index_holds_look_alikes_and_unrelated_landmarks(size):
    numbers = world_size(size)
    index = shots(numbers, "index")
    queries = {shot.landmark for shot in shots(numbers, "query")}
    assert queries <= {shot.landmark for shot in index}
    families = {shot.family for shot in index if shot.landmark in queries}
    others = {shot.landmark: shot.family for shot in index if shot.landmark not in queries}
    alike = [family in families for family in others.values()]
    assert sum(alike) == numbers.look_alike
    assert len(alike) - sum(alike) == numbers.unrelated
    for family in families:  # each query has at least one look-alike
        assert family in others.values()


def test_counts_of_small():
    counts = {split: len(shots(world_size("small"), split)) for split in SPLITS}
    assert counts == {"train": 1152, "validation": 288, "index": 540, "query": 48}


def test_unknown_size_and_split():
    with pytest.raises(UserError, match=r"config\.data\.synthetic\.size = 'huge'"):
        world_size("huge")
    with pytest.raises(ValueError, match="'test'"):
        shots(world_size("tiny"), "test")


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
