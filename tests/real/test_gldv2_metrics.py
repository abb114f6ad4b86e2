"""Random predictions for Google Landmarks v2, and what the official code gives for them."""

import json

import numpy as np
import pytest

from delg_jax.evaluation import gldv2

pytestmark = pytest.mark.real


@pytest.fixture
def golden(shared):
    path = shared / "goldens" / "gldv2_metrics.json"
    if not path.is_file():
        pytest.skip("there is no file gldv2_metrics.json among the goldens")
    return json.loads(path.read_text())


@pytest.mark.parametrize(("ignored", "name"), [(False, "gap"), (True, "gap_ignore_non_gt")])
def test_global_average_precision(golden, ignored, name):
    sides = golden["recognition_predictions"], golden["recognition_solution"]
    found = gldv2.global_average_precision(*sides, ignore_non_gt=ignored)
    assert found == pytest.approx(golden["expected"][name], abs=1e-12)


def test_ties_of_the_golden_matter(golden):
    sides = golden["recognition_predictions"], golden["recognition_solution"]
    together = gldv2.global_average_precision(*sides, ties="together")
    assert abs(together - golden["expected"]["gap"]) > 1e-4


def test_top1_accuracy(golden):
    sides = golden["recognition_predictions"], golden["recognition_solution"]
    found = gldv2.top1_accuracy(*sides)
    assert found == pytest.approx(golden["expected"]["top1"], abs=1e-12)


def test_retrieval(golden):
    sides = golden["retrieval_predictions"], golden["retrieval_solution"]
    expected = golden["expected"]
    found = gldv2.mean_average_precision(*sides)
    assert found == pytest.approx(expected["map100"], abs=1e-12)
    precisions = gldv2.mean_precisions(*sides)
    np.testing.assert_allclose(precisions, expected["mean_precisions"], rtol=0, atol=1e-12)
    positions = gldv2.mean_median_position(*sides)
    np.testing.assert_allclose(positions, expected["mean_median_position"], rtol=0, atol=1e-12)
