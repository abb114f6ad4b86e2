"""Google Landmarks v2: the published solutions, and predictions in the format of Kaggle."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from delg_jax.data.tfds_builders import tables
from delg_jax.data.tfds_builders.gldv2_files import IGNORED

# Task -> column of the answers, in solutions and in predictions
TASKS = {"retrieval": "images", "recognition": "landmarks"}
SCORED = ("Public", "Private")  # usages of queries: validation and test

Solution = dict[str, dict[str, list]]


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
