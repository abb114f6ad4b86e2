import collections

import pytest

from delg_jax.features import batches
from delg_jax.features.pyramid_level import LevelPlan

SIZES = [(40, 56), (64, 64), (33, 61), (130, 70), (50, 50)]
PLANS = [LevelPlan(0.5, 9, False), LevelPlan(1.0, 9, True), LevelPlan(1.2, 9, True)]


def test_levels_of_one_canvas_go_together_by_hand():
    found = batches.arrange([(60, 60), (64, 32), (65, 10)], PLANS[1:], 64, 3 * 64 * 128)
    members = [[(m.image, m.plan.scale) for m in batch.members] for batch in found]
    # Batches of 3 would fit; 2 is the power of two below
    assert members == [[(0, 1.0), (1, 1.0)], [(2, 1.0), (1, 1.2)], [(2, 1.2)], [(0, 1.2)]]
    assert [batch.shape for batch in found] == [(64, 64), (128, 64), (128, 64), (128, 128)]


@pytest.mark.parametrize("pixels", [1, 64 * 64, 7 * 64 * 64, 10**9])
def test_every_image_meets_every_plan_once_without_filler(pixels):
    found = batches.arrange(SIZES, PLANS, 64, pixels)
    pairs = collections.Counter((m.image, m.plan) for batch in found for m in batch.members)
    assert pairs == {(i, plan): 1 for i in range(len(SIZES)) for plan in PLANS}
    for batch in found:
        count = len(batch.members)
        assert count & (count - 1) == 0
        assert count == 1 or count * batch.shape[0] * batch.shape[1] <= pixels
        for member in batch.members:
            assert all(t <= s for t, s in zip(member.target, batch.shape, strict=True))
            assert (member.plan.max_features, member.plan.pooled) == (
                batch.max_features,
                batch.pooled,
            )


def test_batch_sizes_of_a_canvas_are_few():
    for images in range(1, 70):
        found = batches.arrange([(64, 64)] * images, PLANS[1:2], 64, 16 * 64 * 64)
        counts = [len(batch.members) for batch in found]
        assert sum(counts) == images
        assert set(counts) <= {1, 2, 4, 8, 16}
        assert counts == sorted(counts, reverse=True)


def test_levels_that_ask_for_less_go_apart():
    found = batches.arrange(
        [(64, 64)], [LevelPlan(0.9, 9, True), LevelPlan(1.0, 0, True)], 64, 10**6
    )
    assert [(batch.max_features, batch.pooled) for batch in found] == [(9, True), (0, True)]
    assert batches.arrange([], PLANS, 64, 1) == []
