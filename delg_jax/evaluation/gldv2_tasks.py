"""Google Landmarks v2: the published solutions, predictions from rankings, and their scores."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from delg_jax.data import RetrievalData
from delg_jax.data.ground_truth import query_landmarks
from delg_jax.data.tfds_builders import tables
from delg_jax.data.tfds_builders.gldv2_files import IGNORED
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2, significance
from delg_jax.evaluation.revisited import Scores, percent
from delg_jax.evaluation.significance import Interval
from delg_jax.retrieval.ranking import Ranked

# Task by config.data.name
_TASKS = {
    "gldv2": "retrieval",
    "gldv2_recognition": "recognition",
    "gldv2_clean_recognition": "recognition",
}
COUNTED = 100  # images per query that the retrieval task scores
MAIN_METRICS = {"retrieval": f"map@{COUNTED}", "recognition": "gap"}  # by task
# Task -> column of the answers, in solutions and in predictions
TASKS = {"retrieval": "images", "recognition": "landmarks"}
SCORED = ("Public", "Private")  # usages of queries: validation and test

Solution = dict[str, dict[str, list]]


def task_of(name: str) -> str | None:
    """The task of a data set, as `config.data.name` names it; None if it has none."""
    return _TASKS.get(name)


def counted(task: str | None, top: int) -> int:
    """Images per query that a task scores, `top` of them for recognition; 0 for all."""
    if task == "recognition":
        return top
    return COUNTED if task else 0


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for values in `config.eval` that no task can be scored with."""
    evaluation, task = config.eval, task_of(config.data.name)
    if evaluation.recognition_top < 1:
        rule = "must be at least 1"
        raise UserError("config.eval.recognition_top", evaluation.recognition_top, rule)
    if task == "retrieval" and max(evaluation.kappas, default=1) > COUNTED:
        rule = f"must be at most {COUNTED}, the images that count"
        raise UserError("config.eval.kappas", tuple(evaluation.kappas), rule)


def predictions(task: str, found: Ranked, data: RetrievalData, top: int) -> dict[str, Any]:
    """The predictions of a method.

    Args:
      task: retrieval or recognition.
      found: its rankings, with similarities for recognition.
      data: names, and landmarks of the training images for recognition.
      top: training images whose scores are summed by landmark, for recognition.

    Returns:
      By query the ids of the first `COUNTED` images, or `class` and `score`, as `gldv2` and
      `gldv2_files` take them. Queries without a prediction are left out.
    """
    names, ranked = data.queries.names, found.by_protocol["all"]
    if task == "retrieval":
        images = data.database.names
        rows = zip(names, ranked[:, :COUNTED], strict=True)
        retrieved = {name: [images[image] for image in row if image >= 0] for name, row in rows}
        return {name: row for name, row in retrieved.items() if row}
    count = top if found.inliers is None else found.inliers.shape[1]
    assert data.landmarks is not None
    assert found.similarities is not None
    similarities, landmarks = found.similarities[:, :count], data.landmarks.database
    # Below the short list of a re-ranking there is no score
    labels = np.where(np.isfinite(similarities), landmarks[ranked[:, :count]], -1)
    similarities = np.where(labels < 0, 0.0, similarities)
    classes, scores = gldv2.combine(labels, similarities, found.inliers, top)
    return {
        name: {"class": int(label), "score": float(score)}
        for name, label, score in zip(names, classes, scores, strict=True)
        if label >= 0
    }


def score(
    task: str, predicted: dict[str, Any], data: RetrievalData, kappas: Sequence[int]
) -> Scores:
    """Scores the predictions of a method; the task is the one protocol.

    Args:
      task: retrieval or recognition.
      predicted: of `predictions`.
      data: the answers.
      kappas: ranks of the mean precisions, for retrieval.

    Returns:
      The scores. Metrics of retrieval are `map@100`, `p@k`, `mean_position` and `median_position`
      (ranks from 1; 101 for none found); of recognition `gap`, `gap_ignore_non_gt` (without
      predictions for queries that show no landmark), `gap_ties_together` and `top1`.
    """
    solution = answers(task, data)
    if task == "recognition":
        return _recognition(predicted, solution)
    precisions = gldv2.mean_precisions(predicted, solution, max(kappas, default=1))
    positions = gldv2.mean_median_position(predicted, solution, COUNTED)
    metrics = {
        f"map@{COUNTED}": percent(gldv2.mean_average_precision(predicted, solution, COUNTED)),
        **{f"p@{kappa}": percent(precisions[kappa - 1]) for kappa in kappas},
        "mean_position": significance.number_or_none(positions[0]),
        "median_position": significance.number_or_none(positions[1]),
    }
    each = {task: [percent(ap) for ap in gldv2.average_precisions(predicted, solution, COUNTED)]}
    landmarks = query_landmarks(list(solution.values())).tolist()
    return Scores({task: metrics}, each, significance.intervals(each, landmarks), landmarks)


def recognition_comparisons(
    predicted: Mapping[str, dict[str, Any]], data: RetrievalData
) -> dict[str, dict[str, significance.Gain]]:
    """Compares the `gap` of every re-ranking with that of the search that it starts from.

    Args:
      predicted: predictions by method.
      data: the answers.

    Returns:
      As `significance.comparisons`, in percent.
    """
    solution, found = answers("recognition", data), {}
    for method, own in predicted.items():
        over = significance.first_stage(method, predicted)
        if over:
            compared = significance.gap_paired(own, predicted[over], solution)
            difference = Interval(*(100.0 * bound for bound in compared.difference))
            compared = compared._replace(difference=difference)
            found[method] = {"recognition": significance.gain(over, compared)}
    return found


def answers(task: str, data: RetrievalData) -> dict[str, list]:
    """The solution of a task: ids of images, or landmarks, by query.

    Queries and images that could not be prepared are included, those queries last.
    """
    if task == "recognition":
        assert data.landmarks is not None
        known: list[list] = data.landmarks.queries
    else:
        images = data.database.names
        known = [[images[image] for image in entry["easy"]] for entry in data.ground_truth]
    asked = dict(zip(data.queries.names, known, strict=True))
    if data.answers is None:
        return asked
    return {name: list(data.answers[name]) for name in {**asked, **data.answers}}


def _recognition(predicted: dict[str, Any], solution: dict[str, list[int]]) -> Scores:
    gap, low, high = significance.gap_interval(predicted, solution)
    ignoring = gldv2.global_average_precision(predicted, solution, ignore_non_gt=True)
    together = gldv2.global_average_precision(predicted, solution, ties="together")
    metrics = {
        "gap": percent(gap),
        "gap_ignore_non_gt": percent(ignoring),
        "gap_ties_together": percent(together),
        "top1": percent(gldv2.top1_accuracy(predicted, solution)),
    }
    bounds = {"recognition": [percent(low), percent(high)]}
    landmarks = query_landmarks(list(solution.values())).tolist()
    return Scores({"recognition": metrics}, {}, bounds, landmarks)


def read_solution(path: pathlib.Path, task: str) -> Solution:
    """Reads `retrieval_solution_v2.1.csv` or `recognition_solution_v2.1.csv`.

    Args:
      path: of the csv file with the columns id, images or landmarks, and Usage.
      task: one of `TASKS`.

    Returns:
      By usage (Public, Private, Ignored) the answers of each query as `evaluation.gldv2` takes
      them: ids of images, or landmarks (none: no landmark is shown), each once. Ignored ones have
      no answers.

    Raises:
      UserError: if the file cannot be read, naming the line.
      ValueError: for an unknown task.
    """
    column = _column(task)
    solution: Solution = {usage: {} for usage in (*SCORED, IGNORED)}
    for row in tables.read(path, ("id", column, "Usage"), key="id"):
        usage = row.word("Usage")
        if usage not in solution:
            raise row.error(f"Usage must be one of {', '.join(solution)}, not {usage!r}")
        solution[usage][row.name("id")] = [] if usage == IGNORED else _answers(row, column)
    return solution


def read_predictions(
    path: pathlib.Path, task: str, solution: Mapping[str, Mapping[str, list]]
) -> dict[str, dict[str, Any]]:
    """Reads predictions in the format of Kaggle.

    Args:
      path: of the csv file with the columns id, and images ("ID ID ...", best first) or landmarks
        ("CLASS SCORE"); empty where nothing is predicted.
      task: one of `TASKS`.
      solution: of `read_solution`.

    Returns:
      By usage (Public, Private) the prediction of each query as `evaluation.gldv2` takes it: ids
      of images, or `class` and `score`. Queries that are ignored or have none are left out.

    Raises:
      UserError: if the file cannot be read or has a query that the solution lacks, naming the
        line.
      ValueError: for an unknown task.
    """
    column = _column(task)
    usages = {query: usage for usage, queries in solution.items() for query in queries}
    predictions: dict[str, dict[str, Any]] = {usage: {} for usage in SCORED}
    for row in tables.read(path, ("id", column), key="id"):
        query = row.word("id")
        if query not in usages:
            raise row.error(f"the query {query!r} is not in the solution")
        predicted = row.names(column) if task == "retrieval" else _recognised(row)
        if predicted and usages[query] != IGNORED:
            predictions[usages[query]][query] = predicted
    return predictions


def write_predictions(
    path: pathlib.Path, task: str, queries: Sequence[str], predictions: Mapping[str, Any]
) -> None:
    """Writes predictions in the format of Kaggle, whole or not at all.

    Args:
      path: of the csv file.
      task: one of `TASKS`.
      queries: ids of all queries of the challenge, in the order of the file.
      predictions: as `evaluation.gldv2` takes them; a query without one gets an empty field.

    Raises:
      ValueError: for an unknown task, or a prediction for none of `queries`.
    """
    column = _column(task)
    unknown = sorted(predictions.keys() - set(queries))
    if unknown:
        raise ValueError(f"`predictions` (with {unknown[0]!r}) must be for some of `queries`")
    rows = ((query, _text(task, predictions.get(query))) for query in queries)
    tables.write(path, ("id", column), rows)


def _column(task: str) -> str:
    if task not in TASKS:
        raise ValueError(f"`task` (={task!r}) must be one of {', '.join(TASKS)}")
    return TASKS[task]


def _answers(row: tables.Row, column: str) -> list:
    """Answers of a query that is scored."""
    if column == TASKS["recognition"]:
        return list(dict.fromkeys(_landmark(row, text) for text in row.text(column).split()))
    images = list(dict.fromkeys(row.names(column)))
    if not images:
        raise row.error("a query that is not Ignored must have images")
    return images


def _recognised(row: tables.Row) -> dict[str, int | float] | None:
    """The class and score of a query, or None."""
    parts = row.text(TASKS["recognition"]).split()
    if not parts:
        return None
    if len(parts) != 2:
        raise row.error(f"landmarks must be a class and a score, not {len(parts)} parts")
    return {"class": _landmark(row, parts[0]), "score": _score(row, parts[1])}


def _landmark(row: tables.Row, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise row.error(f"landmarks must be whole numbers, not {text!r}")
    return int(text)


def _score(row: tables.Row, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise row.error(f"the score must be a finite number, not {text!r}")
    return score


def _text(task: str, predicted: Any) -> str:
    """A prediction as its field."""
    if predicted is None:
        return ""
    if task == "retrieval":
        return " ".join(predicted)
    return f"{int(predicted['class'])} {float(predicted['score'])}"
