import dataclasses

import numpy as np
import pytest

from delg_jax.data.sources import RetrievalData
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2
from delg_jax.evaluation.pairs import check, draw, interval, pair_average_precision
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.retrieval.settings import RerankSettings
from tests import tiny

TRUTH = [
    {"easy": [0], "hard": [1], "junk": [2]},
    {"easy": [], "hard": [3], "junk": []},
    {"easy": [], "hard": [], "junk": [0, 1, 2, 3, 4]},
]
SAME = {(0, 0), (0, 1), (1, 3)}
OTHERS = {(0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (1, 4)}


def listed(drawn, label):
    kept = drawn.labels == label
    return list(zip(drawn.queries[kept].tolist(), drawn.images[kept].tolist(), strict=True))


def test_all_pairs_are_those_of_the_ground_truth():
    drawn = draw(TRUTH, 5, 3, 6, 0)
    assert (set(listed(drawn, True)), set(listed(drawn, False))) == (SAME, OTHERS)
    assert len(drawn.labels) == 9
    assert drawn.queries.tolist() == sorted(drawn.queries.tolist())


def test_draws_follow_the_seed_and_take_every_pair_alike():
    counts: dict = {}
    for seed in range(300):
        drawn = draw(TRUTH, 5, 1, 2, seed)
        assert len(set(listed(drawn, False))) == 2
        for key in (*listed(drawn, True), *listed(drawn, False)):
            counts[key] = counts.get(key, 0) + 1
    assert counts.keys() == SAME | OTHERS
    assert all(70 < counts[key] < 130 for key in counts)
    one, same = (draw(TRUTH, 5, 2, 3, 1) for _ in range(2))
    for mine, its in zip(one, same, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize(
    ("truth", "positives", "negatives", "named"),
    [
        (TRUTH, 4, 6, "pairs = 4: .*to 3"),
        (TRUTH, 3, 7, "negative_pairs = 7: .*to 6"),
        (TRUTH, 3, 0, "negative_pairs = 0: .*to 6"),
        ([], 1, 1, "pairs = 1: .*to 0"),
    ],
)
def test_more_pairs_than_there_are_is_a_mistake(truth, positives, negatives, named):
    with pytest.raises(UserError, match=rf"config\.eval\.{named}\b"):
        draw(truth, 5, positives, negatives, 0)


def test_the_interval_is_that_of_pairs_drawn_with_replacement(rng):
    labels = np.arange(60) < 20
    scores = rng.poisson(4, 60) + 3 * labels
    found = interval(scores, labels, resamples=4000)
    assert found.mean == gldv2.average_precision(scores, labels)
    values = []
    for _ in range(4000):
        drawn = np.concatenate([rng.integers(0, 20, 20), rng.integers(20, 60, 40)])
        values.append(gldv2.average_precision(scores[drawn], labels[drawn]))
    np.testing.assert_allclose(found[1:], np.quantile(values, [0.025, 0.975]), atol=0.02)
    assert found == interval(scores, labels, resamples=4000)


@pytest.mark.parametrize(("scores", "expected"), [([9, 9, 0, 0], 1.0), ([4, 4, 4, 4], 0.5)])
def test_a_perfect_ranking_and_none_leave_no_doubt(scores, expected):
    found = interval(np.array(scores), np.array([True, True, False, False]))
    assert found == (expected, expected, expected)


@pytest.mark.parametrize("field", ["pairs", "negative_pairs"])
def test_wrong_counts_are_found_before_the_work(field):
    config = tiny.tiny_config()
    config.eval.pairs = 5
    check(config)
    config.eval[field] = -1
    with pytest.raises(UserError, match=rf"config\.eval\.{field} = -1"):
        check(config)


def test_pairs_need_local_features():
    config = tiny.tiny_config()
    config.model.local_head = False
    check(config)
    config.eval.pairs = 5
    with pytest.raises(UserError, match=r"config\.eval\.pairs = 5: .*local"):
        check(config)


def local(rng, count=12):
    descriptors = rng.normal(size=(count, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    ones, places = np.ones(count, np.float32), rng.uniform(0, 500, (count, 2))
    return LocalFeatures(places.astype(np.float32), ones, ones, descriptors, ones.astype(bool))


@pytest.fixture
def extracted(rng):
    """Queries and the images of their landmark have the same features."""
    queries, database = ([local(rng) for _ in range(count)] for count in (3, 5))
    for query, entry in zip(queries, TRUTH, strict=True):
        for image in (*entry["easy"], *entry["hard"]):
            database[image] = query
    stores = (
        InMemoryFeatures([Features(np.ones(1), one) for one in side])
        for side in (database, queries)
    )
    truth = [entry | {"landmark": number} for number, entry in enumerate(TRUTH)]
    return Extracted(RetrievalData(None, None, truth), *stores, "drawn")


@pytest.fixture
def settings():
    return dataclasses.replace(RerankSettings.of(tiny.tiny_config().rerank).sp, hypotheses=50)


def test_perfect_features_are_worth_100(extracted, settings):
    found = pair_average_precision(extracted, settings, 3, 6, 0)
    assert found == {
        "positives": 3, "negatives": 6, "skipped_positives": 0, "skipped_negatives": 0,
        "average_precision": 100.0, "low": 100.0, "high": 100.0,
    }  # fmt: skip
    # 12 features are fewer than `min_inliers`, which must not make all pairs equal
    assert settings.min_inliers == 15


def test_features_that_tell_the_opposite_are_worth_little(extracted, settings):
    turned = [entry | {"easy": [4], "hard": []} for entry in TRUTH[:2]]
    turned[0]["junk"], turned[1]["junk"] = [], []
    data = RetrievalData(None, None, [*turned, TRUTH[2]])
    found = pair_average_precision(extracted._replace(data=data), settings, 2, 8, 0)
    assert found["average_precision"] < 50


@pytest.mark.parametrize("part", ["database", "queries"])
def test_skipped_positives_are_not_found(extracted, settings, part):
    kind = getattr(extracted, part)
    number = TRUTH[0]["easy"][0] if part == "database" else 0
    bare = kind.features[number].local
    rows = list(kind.features)
    rows[number] = rows[number]._replace(local=bare._replace(mask=np.zeros_like(bare.mask)))
    gone = extracted._replace(**{part: InMemoryFeatures(rows)})
    found = pair_average_precision(gone, settings, 3, 6, 0)
    lost = sum(number in (e["easy"] + e["hard"]) for e in TRUTH)
    if part == "queries":
        lost = len(TRUTH[0]["easy"] + TRUTH[0]["hard"])
    assert 0 < lost < 3
    assert found["skipped_positives"] == lost
    assert 0 < found["skipped_negatives"] < 6
    assert found["average_precision"] == pytest.approx(100 * (3 - lost) / 3)
    assert found["low"] < found["average_precision"] < found["high"]


def test_an_interval_leaves_pairs_without_a_score_out_of_the_ranking():
    scores, labels = np.array([9, 3, 0, 0]), np.array([True, False, True, True])
    found = interval(scores, labels, found=np.array([True, True, True, False]))
    assert found.mean == pytest.approx((1 + 2 / 3) / 3)
    rest = interval(scores[:3], labels[:3])
    assert found.high <= rest.high
