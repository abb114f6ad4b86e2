import dataclasses

import numpy as np
import pytest

from delg_jax.data.sources import FileSource, Landmarks, RetrievalData
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2_tasks
from delg_jax.retrieval.ranking import Ranked
from tests import tiny

DATABASE, QUERIES = ["a", "b", "c", "d"], ["p", "q", "r"]


def source(names):
    return FileSource(None, names, np.full(len(names), -1))


@pytest.fixture
def data():
    relevant = ([0, 1], [], [2])
    truth = [{"bbx": [0, 0, 9, 9], "easy": images, "hard": [], "junk": []} for images in relevant]
    landmarks = Landmarks(np.array([7, 7, 17, -1]), [[7], [], [17, 99]])
    return RetrievalData(source(DATABASE), source(QUERIES), truth, landmarks)


@pytest.fixture
def ranked():
    images = np.array([[1, 0, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]])
    similarities = np.array([[0.9, 0.8, 0.5, 0.1], [0.4, 0.3, 0.2, 0.1], [0.6, 0.5, 0.9, -np.inf]])
    return Ranked({"all": images}, similarities)


def test_retrieval_names_images_in_order(data, ranked):
    said = gldv2_tasks.predictions("retrieval", ranked, data, 1)
    assert said["p"] == ["b", "a", "c", "d"]
    found = gldv2_tasks.score("retrieval", said, data, (1, 2))
    # p finds both at once, r its one image at rank 3; q has nothing to find
    assert found.average_precisions["retrieval"] == pytest.approx([100, None, 100 / 3])
    assert found.metrics["retrieval"] == pytest.approx(
        {"map@100": 200 / 3, "p@1": 50, "p@2": 50, "mean_position": 2, "median_position": 2}
    )
    assert found.intervals["retrieval"] == pytest.approx([100 / 3, 100])


def test_skipped_images_are_not_retrieved_and_a_query_of_none_is_left_out(data):
    ranked = Ranked({"all": np.array([[1, -1, 2, -1], [-1] * 4, [3, 0, -1, -1]])})
    said = gldv2_tasks.predictions("retrieval", ranked, data, 1)
    assert said == {"p": ["b", "c"], "r": ["d", "a"]}


def test_the_first_hundred_images_are_retrieved(data):
    count = gldv2_tasks.COUNTED + 20
    many = dataclasses.replace(data, database=source([str(image) for image in range(count)]))
    ranked = Ranked({"all": np.tile(np.arange(count)[::-1], (3, 1))})
    said = gldv2_tasks.predictions("retrieval", ranked, many, 1)
    assert said["p"] == [str(image) for image in range(119, 19, -1)]


@pytest.mark.parametrize(
    ("top", "third"), [(1, (7, 0.6)), (2, (7, 1.1)), (3, (7, 1.1)), (4, (7, 1.1))]
)
def test_landmarks_are_summed_over_the_first_images(data, ranked, top, third):
    said = gldv2_tasks.predictions("recognition", ranked, data, top)
    assert said["p"] == {"class": 7, "score": pytest.approx(0.9 if top == 1 else 1.7)}
    # the first image shows no known landmark
    assert ("q" in said) is (top > 1)
    assert said["r"] == {"class": third[0], "score": pytest.approx(third[1])}


def test_a_similarity_of_minus_infinity_counts_for_nothing(data):
    images = np.array([[0, 1, 2], [2, 0, 1], [0, 1, 2]])
    nothing = -np.inf
    similarities = np.array([[0.5, nothing, 0.4], [0.3, nothing, nothing], [nothing] * 3])
    ranked = Ranked({"all": images}, similarities)
    said = gldv2_tasks.predictions("recognition", ranked, data, 3)
    assert said == {
        "p": {"class": 7, "score": pytest.approx(0.5)},
        "q": {"class": 17, "score": pytest.approx(0.3)},
    }
    ranked = ranked._replace(inliers=np.full((3, 3), 70, np.int32))
    said = gldv2_tasks.predictions("recognition", ranked, data, 3)
    assert said == {
        "p": {"class": 7, "score": pytest.approx(1.5)},
        "q": {"class": 17, "score": pytest.approx(1.3)},
    }


def test_skipped_queries_and_images_stay_in_the_denominators(data):
    answers = {"q": [], "p": ["a", "x"], "r": ["c"], "s": ["a"]}
    whole = dataclasses.replace(data, answers=answers, landmarks=None)
    said = {"p": ["b", "a"], "r": ["c"]}
    found = gldv2_tasks.score("retrieval", said, whole, (1, 2))
    assert list(gldv2_tasks.answers("retrieval", whole)) == ["p", "q", "r", "s"]
    assert found.average_precisions["retrieval"] == pytest.approx([25, None, 100, 0])
    assert found.metrics["retrieval"]["map@100"] == pytest.approx(125 / 3)
    assert found.metrics["retrieval"]["p@1"] == pytest.approx(100 / 3)
    answers = {"p": [7], "q": [], "r": [17, 99], "s": [7]}
    whole = dataclasses.replace(data, answers=answers)
    said = {"p": {"class": 7, "score": 0.9}, "r": {"class": 17, "score": 0.5}}
    metrics = gldv2_tasks.score("recognition", said, whole, (1,)).metrics["recognition"]
    assert metrics["gap"] == metrics["top1"] == pytest.approx(100 * 2 / 3)
    less = {name: one for name, one in said.items() if name == "p"}
    compared = gldv2_tasks.recognition_comparisons({"global": less, "global+sp": said}, whole)
    gain = compared["global+sp"]["recognition"]["difference"]
    assert gain == pytest.approx(100 / 3)


def test_inliers_count_beside_similarities(data, ranked):
    inliers = np.array([[0, 0], [0, 70], [35, 700]], np.int32)
    said = gldv2_tasks.predictions("recognition", ranked._replace(inliers=inliers), data, 1)
    assert said["q"] == {"class": 17, "score": pytest.approx(1.3)}
    assert said["r"] == {"class": 7, "score": pytest.approx(1.5)}


def test_recognition_is_scored_by_both_rules(data):
    said = {
        "p": {"class": 7, "score": 0.5},
        "q": {"class": 17, "score": 0.5},
        "r": {"class": 99, "score": 0.5},
    }
    found = gldv2_tasks.score("recognition", said, data, (1,))
    metrics = found.metrics["recognition"]
    assert metrics["gap"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert metrics["gap_ignore_non_gt"] == metrics["top1"] == 100
    assert metrics["gap_ties_together"] == pytest.approx(100 * 2 / 3)
    assert found.average_precisions == {}
    low, high = found.intervals["recognition"]
    assert 0 <= low <= metrics["gap"] <= high <= 100


def test_no_queries_give_no_numbers():
    nothing = RetrievalData(source(DATABASE), source([]), [], Landmarks(np.zeros(4, int), []))
    empty = Ranked({"all": np.zeros((0, 4), np.int32)}, np.zeros((0, 4), np.float32))
    for task in ("retrieval", "recognition"):
        said = gldv2_tasks.predictions(task, empty, nothing, 3)
        metrics = gldv2_tasks.score(task, said, nothing, (1,)).metrics[task]
        assert said == {}
        assert set(metrics.values()) == {None}


@pytest.mark.parametrize(("field", "value"), [("recognition_top", 0), ("kappas", (1, 101))])
def test_wrong_values_are_refused(field, value):
    config = tiny.tiny_config()
    config.data.name = "gldv2"
    gldv2_tasks.check(config)
    config.eval[field] = value
    with pytest.raises(UserError, match=rf"config\.eval\.{field}"):
        gldv2_tasks.check(config)


def test_other_data_sets_have_no_task():
    config = tiny.tiny_config()
    assert gldv2_tasks.task_of(config) is None
    config.data.name = "gldv2_clean_recognition"
    assert gldv2_tasks.task_of(config) == "recognition"
