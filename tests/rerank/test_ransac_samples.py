import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.rerank import ransac

KEY = jax.random.key(3)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("count", [4, 7, 1000])
def test_ranks_are_distinct_and_cover_all_matches_evenly(count, size):
    ranks = np.asarray(ransac.distinct_ranks(KEY, jnp.array(count), size, 4000))
    assert ranks.shape == (size, 4000)
    assert ranks.min() >= 0
    assert ranks.max() < count
    assert all(len(set(sample)) == size for sample in ranks.T)
    if count <= 7:
        for row in ranks:
            share = np.bincount(row, minlength=count) / 4000
            np.testing.assert_allclose(share, 1 / count, atol=0.03)


def test_all_samples_are_equally_likely():
    ranks = np.asarray(ransac.distinct_ranks(KEY, jnp.array(4), 3, 8000))
    _, found = np.unique(ranks, axis=1, return_counts=True)
    assert len(found) == 24
    np.testing.assert_allclose(found / 8000, 1 / 24, atol=0.01)


def draw(keys, count, is_good, number=200):
    return np.asarray(ransac.draw_samples(keys, jnp.asarray(count), 3, number, is_good))


def without_rank_zero(ranks):
    return (ranks != 0).all(axis=1)


def test_degenerate_samples_are_drawn_again_and_good_ones_are_kept():
    keys = jax.random.split(KEY, 2)
    drawn = draw(keys, [9, 30], without_rank_zero)
    assert without_rank_zero(drawn).all()
    first = draw(keys, [9, 30], lambda ranks: jnp.ones((2, 200), bool))
    kept = without_rank_zero(first)
    assert not kept.all()
    np.testing.assert_array_equal(drawn[:, 0][kept], first[:, 0][kept])
    assert (np.sort(drawn, axis=1)[:, 1:] > np.sort(drawn, axis=1)[:, :-1]).all()


def test_a_pair_that_has_no_good_sample_ends_and_changes_no_other():
    keys = jax.random.split(KEY, 2)
    hopeless = jnp.array([False, True])
    together = draw(keys, [9, 9], lambda r: without_rank_zero(r) & ~hopeless[:, None])
    alone = draw(keys[:1], [9], without_rank_zero)
    np.testing.assert_array_equal(together[0], alone[0])


def test_pairs_without_enough_matches_are_not_waited_for():
    attempts = []

    def is_good(ranks):
        jax.debug.callback(lambda: attempts.append(1))
        return jnp.zeros((1, 200), bool)

    draw(jax.random.split(KEY, 1), [2], is_good)
    jax.effects_barrier()
    assert len(attempts) == 1
