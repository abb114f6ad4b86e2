import json

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.data.sources import RetrievalData
from delg_jax.data.synthetic import SyntheticSource
from delg_jax.evaluation.repeatability import Measures
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from experiments.tables import homography_inliers
from tests import charts
from tests.experiments.tables.test_quickstart_seeds import CONFIG

VIEWS = np.array([np.eye(3), [[0.5, 0, 30], [0, 1, 10], [0, 0, 1]]])
BOXES = np.array([[0, 0, 200, 200], [30, 10, 130, 210]], np.float32)


def source(views, boxes):
    found = object.__new__(SyntheticSource)
    found.names, found.homographies, found.boxes = ["a", "b"][: len(views)], views, boxes
    return found


def local(points):
    ones = np.ones(len(points), np.float32)
    descriptors = np.eye(len(points), 32, dtype=np.float32)
    places = points[:, ::-1].astype(np.float32)
    return Features(np.ones(1), LocalFeatures(places, ones, ones, descriptors, ones.astype(bool)))


@pytest.fixture
def extracted(rng):
    """Perfect features of a landmark seen from in front, and squeezed to half its width.

    The query is the view from in front, cropped to a box that begins at (20, 40).
    """
    points = rng.uniform(50, 150, (30, 2))
    squeezed = points * np.array([[0.5, 1]]) + np.array([[30, 10]])
    truth = [{"bbx": [20, 40, 180, 180], "easy": [0], "hard": [1], "junk": []}]
    data = RetrievalData(source(VIEWS, BOXES), source(VIEWS[:1], BOXES[:1]), truth)
    database = InMemoryFeatures([local(points), local(squeezed)])
    queries = InMemoryFeatures([local(points - np.array([[20, 40]]))])
    return Extracted(data, database, queries, "perfect")


def test_locations_in_a_cropped_query_are_mapped_to_its_image(extracted):
    (one, same), (two, tilted) = homography_inliers.pairs(extracted, [(20, 40, 180, 180)], 0)
    assert (one, two) == pytest.approx((1, 2))
    np.testing.assert_allclose(same.second.locations, same.first.locations, atol=1e-4)
    assert same.second_area == (20, 40, 180, 180)
    assert tilted.first_area == (30, 10, 130, 210)
    whole, _ = homography_inliers.pairs(extracted, None, 0)
    assert (whole[1].second.locations < same.second.locations).all()


def test_perfect_features_score_1_at_any_tilt(extracted, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(homography_inliers, "extract", lambda *_: extracted)
    arguments = [CONFIG, f"--workdir={tmp_path}", f"--results={tmp_path / 'results'}"]
    assert run_experiment(homography_inliers, arguments) == 0
    content = json.loads((tmp_path / "results" / "homography_inliers.json").read_text())
    assert [(row["from"], row["to"], row["pairs"]) for row in content["rows"]] == [
        (1.0, 1.15, 1),
        (2.0, None, 1),
    ]
    for row in content["rows"]:
        assert [row[name] for name in homography_inliers.SHARES] == [1.0, 1.0, 1.0]
        assert row["inliers"] == 30
    text = (tmp_path / "results" / "homography_inliers.md").read_text()
    assert capsys.readouterr().out == text
    assert "| 2 to inf        |     1 |        100.0% |" in text
    curves, _ = charts.read((tmp_path / "results" / "homography_inliers.svg").read_text())
    assert len(curves) == 3


def test_rows_by_tilt():
    right, wrong = np.ones(3, bool), np.zeros(1, bool)
    results = [
        (1.0, Measures(0.5, 0.25, right)),
        (1.1, Measures(np.nan, 0.75, wrong)),
        (1.9, Measures(np.nan, np.nan, wrong[:0])),
        (np.nan, Measures(1.0, 1.0, right)),
    ]
    first, second = homography_inliers.by_tilt(results)
    assert first == pytest.approx(
        {
            "from": 1.0, "to": 1.15, "pairs": 2, "tilt": 1.05, "repeatability": 0.5,
            "matching score": 0.5, "inliers": 2.0, "correct inliers": 0.75,
        }
    )  # fmt: skip
    assert second["repeatability"] is second["matching score"] is second["correct inliers"] is None
    last = homography_inliers.table([first, second]).splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")] == [
        "1.6 to 2", "1", "-", "-", "0.0", "-",
    ]  # fmt: skip


def test_data_without_known_homographies_are_refused(capsys, tmp_path):
    arguments = [CONFIG, f"--workdir={tmp_path}", "--config.data.name=revisited"]
    assert run_experiment(homography_inliers, arguments) == 2
    assert "config.data.name = 'revisited': " in capsys.readouterr().err
