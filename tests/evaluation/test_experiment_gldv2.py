"""`evaluate` on Google Landmarks v2, in the published layout."""

import pathlib

import numpy as np
import pytest

import delg_jax.evaluation.experiment as evaluation_of_experiment
from delg_jax import json_files
from delg_jax.data import open_retrieval
from delg_jax.evaluation import evaluate, gldv2, gldv2_tasks
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from tests import tiny
from tests.data.tfds_builders.published import image_id, jpeg, make_gldv2, place
from tests.photographs import truncate

# The packages have functions of these names, which hide the modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gldv2")
    make_gldv2(folder / "raw", tars=0)
    # The query 201 is the picture of the index image 103, 202 that of the training image 7
    place(folder / "raw" / "test", image_id(201), jpeg(303))
    place(folder / "raw" / "test", image_id(202), jpeg(7))
    return folder


@pytest.fixture
def config(folder):
    config = tiny.tiny_config()
    config.data.root, config.data.tfds_dir = str(folder / "raw"), str(folder / "tfds")
    config.data.workers = 0
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.extract.max_features = 4
    config.eval.methods = ("global", "global+superglobal", "global+sp", "local", "local+sp")
    config.rerank.sp.min_inliers = 4
    config.rerank.sp.hypotheses = 50
    config.rerank.superglobal.neighbours = 1
    return config


def oracle(config, *_):
    """Features that tell the answer: those of a query are made of the images it should find."""
    data = open_retrieval(config.data)
    rng, count = np.random.default_rng(0), len(data.database)
    strange = [local(rng) for _ in range(count)]
    queries = []
    for entry in data.ground_truth:
        descriptor = np.zeros(count + 1, np.float32)
        # One that should find nothing is near nothing
        descriptor[entry["easy"] or [count]] = 1
        seen = local(rng)
        for image in entry["easy"]:
            strange[image] = seen
        queries.append(Features(descriptor / np.linalg.norm(descriptor), seen))
    database = [Features(np.eye(count + 1, dtype=np.float32)[n], s) for n, s in enumerate(strange)]
    return Extracted(data, InMemoryStore(database), InMemoryStore(queries), "oracle")


class InMemoryStore(InMemoryFeatures):
    """Features that also have the digest of a store."""

    def digest(self):
        return "oracle"


def local(rng):
    descriptors = rng.normal(size=(12, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    ones, places = np.ones(12, np.float32), rng.uniform(0, 500, (12, 2)).astype(np.float32)
    return LocalFeatures(places, ones, ones, descriptors, ones.astype(bool))


@pytest.mark.parametrize("usage", ["", "public"])
def test_perfect_features_find_everything(config, usage, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_of_experiment, "extract", oracle)
    config.data.name, config.data.ground_truth = "gldv2", usage
    result = evaluate(config, tmp_path)
    for method in config.eval.methods:
        table = result["methods"][method]["retrieval"]
        assert table["map@100"] == table["p@1"] == pytest.approx(100)
        assert table["mean_position"] == table["median_position"] == 1
        assert result["average_precisions"][method] == {"retrieval": [pytest.approx(100)]}
        assert result["intervals"][method] == {"retrieval": [None, None]}  # of one landmark
    assert result["comparisons"]["global+sp"]["retrieval"]["difference"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("name", "usage"), [("gldv2_recognition", ""), ("gldv2_clean_recognition", "public")]
)
def test_perfect_features_recognise_everything(config, name, usage, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_of_experiment, "extract", oracle)
    config.data.name, config.data.ground_truth = name, usage
    result = evaluate(config, tmp_path)
    for method in config.eval.methods:
        table = result["methods"][method]["recognition"]
        assert set(table.values()) == {100.0}
        assert result["intervals"][method] == {"recognition": [100.0, 100.0]}
    same = {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}
    landmarks = len(set(result["query_landmarks"]))
    same |= {"queries": len(result["query_landmarks"]), "landmarks": landmarks}
    assert result["comparisons"] == {
        method: {"recognition": same | {"over": method.split("+")[0]}}
        for method in config.eval.methods
        if "+" in method
    }


@pytest.mark.parametrize(
    ("name", "task", "metric"),
    [("gldv2", "retrieval", "map@100"), ("gldv2_recognition", "recognition", "gap")],
)
def test_a_submission_scores_as_the_metrics_say(config, name, task, metric, tmp_path):
    config.data.name, config.eval.recognition_top = name, 1
    config.eval.methods = ("global",)
    result = evaluate(config, tmp_path)
    assert json_files.read(tmp_path / "metrics.json", "metrics", json_files.anything) == result
    table = result["methods"]["global"][task]
    assert table["p@1" if task == "retrieval" else "top1"] == 100  # the same picture is found
    path = pathlib.Path(config.data.root) / f"{task}_solution_v2.1.csv"
    solution = gldv2_tasks.read_solution(path, task)
    path = tmp_path / f"submission_{task}_global.csv"
    said = gldv2_tasks.read_predictions(path, task, solution)
    assert said["Public"] == {}
    official = {
        "retrieval": gldv2.mean_average_precision,
        "recognition": gldv2.global_average_precision,
    }[task]
    expected = 100 * official(said["Private"], solution["Private"])
    assert table[metric] == pytest.approx(expected)
    assert 0 < expected <= 100


def broken(folder, *numbers):
    """Truncates pictures, as interrupted downloads do."""
    for number in numbers:
        (path,) = (folder / "raw").rglob(f"{image_id(number)}.jpg")
        truncate(path)


@pytest.mark.parametrize(
    ("numbers", "least", "skipped"),
    [
        ((), 75, {"images": 0, "queries": 0, "positives": 0}),
        ((100,), 75, {"images": 1, "queries": 0, "positives": 1}),
        ((202,), 25, {"images": 0, "queries": 1, "positives": 0}),
        ((100, 202), 25, {"images": 1, "queries": 1, "positives": 1}),
    ],
)
def test_skips_of_retrieval_improve_nothing(config, tmp_path, numbers, least, skipped):
    make_gldv2(tmp_path / "raw", tars=0)
    # The query 201 finds one of its two images first; 202 finds its own, and is in no other list
    place(tmp_path / "raw" / "test", image_id(201), jpeg(303))
    place(tmp_path / "raw" / "test", image_id(202), jpeg(301))
    path = tmp_path / "raw" / "retrieval_solution_v2.1.csv"
    rows = [
        "id,images,Usage",
        f"{image_id(201)},{image_id(103)} {image_id(100)} {image_id(103)},Private",
        f"{image_id(202)},{image_id(101)},Private",
    ]
    path.write_text("\n".join(rows) + "\n")
    broken(tmp_path, *numbers)
    config.data.root, config.data.tfds_dir = str(tmp_path / "raw"), str(tmp_path / "tfds")
    config.data.name, config.eval.methods = "gldv2", ("global", "local")
    config.data.max_skipped = 1
    result = evaluate(config, tmp_path / "run")
    solution = gldv2_tasks.read_solution(path, "retrieval")
    for method in ("global", "local"):
        said = gldv2_tasks.read_predictions(
            tmp_path / "run" / f"submission_retrieval_{method}.csv", "retrieval", solution
        )
        expected = 100 * gldv2.mean_average_precision(said["Private"], solution["Private"])
        assert result["methods"][method]["retrieval"]["map@100"] == pytest.approx(expected)
        precision = 100 * gldv2.mean_precisions(said["Private"], solution["Private"])[4]
        assert result["methods"][method]["retrieval"]["p@5"] == pytest.approx(precision)
        assert result["skipped"][method] == skipped
        assert image_id(100) not in str(said) or 100 not in numbers
    found = result["methods"]["global"]["retrieval"]["map@100"]
    # Where the random network ranks the image 100 decides the rest
    assert least <= found <= least + (25 if 100 not in numbers else 1e-9)
    assert len(result["average_precisions"]["global"]["retrieval"]) == 2


def test_a_skipped_query_is_not_recognised(config, tmp_path):
    make_gldv2(tmp_path / "raw", tars=0)
    place(tmp_path / "raw" / "test", image_id(202), jpeg(7))
    broken(tmp_path, 202)
    config.data.root, config.data.tfds_dir = str(tmp_path / "raw"), str(tmp_path / "tfds")
    config.data.name, config.eval.methods = "gldv2_recognition", ("global",)
    config.data.max_skipped = 1
    result = evaluate(config, tmp_path / "run")
    table = result["methods"]["global"]["recognition"]
    assert (table["gap"], table["top1"]) == (0, 0)  # the one query with a landmark
    assert result["skipped"]["global"]["queries"] == 1
    path = tmp_path / "run" / "submission_recognition_global.csv"
    assert f"{image_id(202)}," in path.read_text().splitlines()
