import dataclasses

import numpy as np
import pytest

from delg_jax import json_files, workdir
from delg_jax.data.sources import FileSource, Landmarks, RetrievalData
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2, gldv2_tasks
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
    assert gldv2_tasks.task_of("synthetic") is None
    assert gldv2_tasks.task_of("gldv2_clean_recognition") == "recognition"
    counts = [gldv2_tasks.counted(task, 7) for task in (None, "retrieval", "recognition")]
    assert counts == [0, 100, 7]


RETRIEVAL = "id,images,Usage\nq01,x01 x02,Private\nq02,x03,Public\nq03,None,Ignored\n"
RECOGNITION = "id,landmarks,Usage\nq01,7 12,Public\nq02,,Private\nq03,,Ignored\n"


def solution_of(tmp_path, task, content):
    path = tmp_path / f"{task}_solution.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return gldv2_tasks.read_solution(path, task)


def predictions_of(tmp_path, task, content):
    solution = solution_of(tmp_path, task, RETRIEVAL if task == "retrieval" else RECOGNITION)
    path = tmp_path / "submission.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return gldv2_tasks.read_predictions(path, task, solution)


def test_the_solution_of_retrieval(tmp_path):
    assert solution_of(tmp_path, "retrieval", RETRIEVAL) == {
        "Public": {"q02": ["x03"]},
        "Private": {"q01": ["x01", "x02"]},
        "Ignored": {"q03": []},
    }


def test_the_solution_of_recognition(tmp_path):
    assert solution_of(tmp_path, "recognition", RECOGNITION) == {
        "Public": {"q01": [7, 12]},
        "Private": {"q02": []},
        "Ignored": {"q03": []},
    }


def test_columns_are_found_by_name_and_lines_may_end_as_on_windows(tmp_path):
    content = b"\xef\xbb\xbfUsage,more,id,landmarks\r\nPublic,,q01,7\r\n"
    assert solution_of(tmp_path, "recognition", content)["Public"] == {"q01": [7]}


@pytest.mark.parametrize(
    ("task", "content", "names"),
    [
        ("retrieval", RECOGNITION, "line 1'.* id, images, Usage; images "),
        ("recognition", RETRIEVAL, "line 1'.*; landmarks "),
        ("retrieval", "id,images,Usage\nq01,x01\n", "line 2'.*3 fields.* 2"),
        ("retrieval", RETRIEVAL + "q01,x01,Public\n", "line 5'.*'q01' .* line 2"),
        ("retrieval", "id,images,Usage\nq01,x01,public\n", "line 2'.*Public, Private, Ignored"),
        ("retrieval", "id,images,Usage\nq01,,Public\n", "line 2'.* have images"),
        ("retrieval", "id,images,Usage\nq01,x01;x02,Public\n", "line 2'.*images .*'x01;x02'"),
        ("retrieval", "id,images,Usage\n../q,x01,Public\n", r"line 2'.*id .*'\.\./q'"),
        ("recognition", "id,landmarks,Usage\nq01,7 x,Private\n", "line 2'.*landmarks .*'x'"),
        ("recognition", "id,landmarks,Usage\nq01,-7,Private\n", "line 2'.*landmarks .*'-7'"),
        ("recognition", b"id,landmarks,Usage\n\xff,7,Public\n", "UTF-8"),
        ("recognition", "", "empty"),
    ],
)
def test_a_wrong_solution_is_one_line(tmp_path, task, content, names):
    with pytest.raises(UserError, match=names) as caught:
        solution_of(tmp_path, task, content)
    assert f"{task}_solution.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv': .*No such file"):
        gldv2_tasks.read_solution(tmp_path / "none.csv", "retrieval")


def test_spaces_and_empty_rows_of_spreadsheets_do_not_count(tmp_path):
    rows = "id,images,Usage \r\nabc ,d1e f2g ,Public \r\n,,\r\n"
    solution = solution_of(tmp_path, "retrieval", rows)
    assert solution["Public"] == {"abc": ["d1e", "f2g"]}
    path = tmp_path / "predictions.csv"
    path.write_bytes('id, images\r\n"abc ",f2g\r\n \r\n'.encode("utf-16"))
    found = gldv2_tasks.read_predictions(path, "retrieval", solution)
    assert found["Public"] == {"abc": ["f2g"]}


def test_predictions_of_retrieval(tmp_path):
    content = "id,images\nq01,x09 x01 x09\nq02,\nq03,x05\n"
    found = predictions_of(tmp_path, "retrieval", content)
    assert found == {"Public": {}, "Private": {"q01": ["x09", "x01", "x09"]}}


def test_predictions_of_recognition(tmp_path):
    content = "id,landmarks\nq01,7 1.5e-3 \nq02,\nq03,1 2\n"
    found = predictions_of(tmp_path, "recognition", content)
    assert found == {"Public": {"q01": {"class": 7, "score": 0.0015}}, "Private": {}}


@pytest.mark.parametrize(
    ("task", "content", "names"),
    [
        ("retrieval", "id,landmarks\nq01,7 1\n", "line 1'.*; images "),
        ("retrieval", "id,images\nq01,x01\nq01,x02\n", "line 3'.* line 2"),
        ("retrieval", "id,images\nq09,x01\n", "line 2'.*'q09'.*solution"),
        ("retrieval", "id,images\nq01,x01\nq02,x/y\n", "line 3'.*'x/y'"),
        ("retrieval", b"id,images\nq01,\xff\xff\xff\n", "UTF-8"),
        ("recognition", "id,landmarks\nq01,7\n", "line 2'.*score.* 1 "),
        ("recognition", "id,landmarks\nq01,7 1 8 1\n", "line 2'.*score.* 4 "),
        ("recognition", "id,landmarks\nq01,7.0 1\n", r"line 2'.*'7\.0'"),
        ("recognition", "id,landmarks\nq01,7 x\n", "line 2'.*'x'"),
        ("recognition", "id,landmarks\nq01,7 nan\n", "line 2'.*'nan'"),
        ("recognition", "id,landmarks\nq01,7 inf\n", "line 2'.*'inf'"),
    ],
)
def test_wrong_predictions_are_one_line(tmp_path, task, content, names):
    with pytest.raises(UserError, match=names) as caught:
        predictions_of(tmp_path, task, content)
    assert "submission.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_written_predictions_are_those_of_kaggle(tmp_path):
    path = tmp_path / "a.csv"
    gldv2_tasks.write_predictions(path, "retrieval", ["q02", "q01"], {"q01": ["x02", "x01"]})
    assert path.read_bytes() == b"id,images\nq02,\nq01,x02 x01\n"
    said = {"q01": {"class": np.int64(7), "score": np.float32(0.5)}}
    gldv2_tasks.write_predictions(path, "recognition", ["q01", "q02"], said)
    assert path.read_bytes() == b"id,landmarks\nq01,7 0.5\nq02,\n"


def test_scores_read_back_to_the_bit(tmp_path, rng):
    scores = [*rng.normal(size=5), 1e-300, 1e22, 0.1]
    queries = [f"q{n:02d}" for n in range(len(scores))]
    said = {
        q: {"class": n, "score": s} for n, (q, s) in enumerate(zip(queries, scores, strict=True))
    }
    gldv2_tasks.write_predictions(tmp_path / "a.csv", "recognition", queries, said)
    solution = {"Public": dict.fromkeys(queries, [1]), "Private": {}, "Ignored": {}}
    found = gldv2_tasks.read_predictions(tmp_path / "a.csv", "recognition", solution)
    assert found["Public"] == said


def test_data_that_are_read_can_be_scored_and_stored(tmp_path):
    solution = solution_of(tmp_path, "recognition", RECOGNITION)
    found = predictions_of(tmp_path, "recognition", "id,landmarks\nq01,12 0.3\nq02,1 0.9\n")
    assert gldv2.global_average_precision(found["Public"], solution["Public"]) == 1.0
    solution = solution_of(tmp_path, "retrieval", RETRIEVAL)
    found = predictions_of(tmp_path, "retrieval", "id,images\nq01,x09 x01\n")
    aps = gldv2.average_precisions(found["Private"], solution["Private"])
    np.testing.assert_allclose(aps, [(1 / 2) / 2])
    workdir.write_json(tmp_path / "a.json", found)
    assert json_files.read(tmp_path / "a.json", "predictions", json_files.anything) == found


def test_a_failed_write_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("before")
    broken = {"q01": {"class": 1, "score": 1.0}, "q02": {"class": 2}}
    with pytest.raises(KeyError):
        gldv2_tasks.write_predictions(path, "recognition", ["q01", "q02"], broken)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_misuse_is_named(tmp_path):
    with pytest.raises(ValueError, match="'q09'.*`queries`"):
        gldv2_tasks.write_predictions(tmp_path / "a.csv", "retrieval", ["q01"], {"q09": []})
    for call in (
        lambda: gldv2_tasks.read_solution(tmp_path / "a.csv", "search"),
        lambda: gldv2_tasks.read_predictions(tmp_path / "a.csv", "search", {}),
        lambda: gldv2_tasks.write_predictions(tmp_path / "a.csv", "search", [], {}),
    ):
        with pytest.raises(ValueError, match="`task` .='search'"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_answers_that_are_listed_twice_count_once(tmp_path):
    content = "id,images,Usage\nq01,x01 x02 x01,Private\n"
    assert solution_of(tmp_path, "retrieval", content)["Private"] == {"q01": ["x01", "x02"]}
    content = "id,landmarks,Usage\nq01,7 12 7,Private\n"
    assert solution_of(tmp_path, "recognition", content)["Private"] == {"q01": [7, 12]}
    assert predictions_of(tmp_path, "retrieval", "id,images\nq01,x01 x01 x02\n")["Private"] == {
        "q01": ["x01", "x01", "x02"]  # takes a rank, and is no hit, by the official code
    }
