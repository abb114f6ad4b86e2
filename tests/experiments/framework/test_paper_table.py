import dataclasses
import json

import numpy as np
import pytest

from delg_jax.benchmarks import environment
from experiments.framework import plan
from experiments.framework.paper_table import PaperTable
from experiments.framework.plan import Options
from experiments.framework.table_cells import Cell
from tests.experiments.framework.test_plan import EXPERIMENT, SIZE

CELLS = {
    ("a", "One Medium"): Cell(3.0, 2.0, 4.0, np.array([2.0, 4.0]), np.arange(2)),
    ("a", "Two Hard"): Cell(5.0),
    ("b", "One Medium"): Cell(6.0, 5.0, 7.0, np.array([5.0, 7.0]), np.arange(2)),
    ("b", "Two Hard"): Cell(6.5),
    ("c", "One Medium"): Cell(),
    ("c", "Two Hard"): Cell(),
}


@pytest.fixture
def table(tmp_path):
    return PaperTable(EXPERIMENT, Options("quick", tmp_path), CELLS, ["c (no memory)"])


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def of_paper(table):
    size = dataclasses.replace(SIZE, of_paper=True)
    experiment = dataclasses.replace(EXPERIMENT, sizes={"quick": size})
    return dataclasses.replace(table, experiment=experiment)


def test_on_the_data_of_the_paper_each_has_a_table_with_the_difference(table):
    found = rows(of_paper(table).markdown())
    assert found[0] == ["Table 0", "One Medium: paper", "ours", "difference"]
    assert found[2] == ["a", "1.00", "3.00 [2.00, 4.00]", "+2.00"]
    assert found[3] == ["b", "-", "6.00 [5.00, 7.00]", "-"]
    assert found[4] == ["c", "-", "-", "-"]
    assert found[5] == ["Table 0", "Two Hard"]  # of which the paper has nothing


def test_other_data_have_their_own_name_and_no_difference(table, tmp_path):
    size = dataclasses.replace(SIZE, titles={"one": "photographs"})
    other = dataclasses.replace(EXPERIMENT, sizes={"quick": size})
    cells = {(row, title.replace("One", "photographs")): c for (row, title), c in CELLS.items()}
    other = dataclasses.replace(table, experiment=other, cells=cells)
    found = rows(other.markdown())
    assert found[0] == ["Table 0", "photographs Medium", "the paper's One Medium"]
    assert found[2] == ["a", "3.00 [2.00, 4.00]", "1.00"]
    entry = other.content()["cells"][0]
    assert (entry["column"], entry["paper"]) == ("photographs Medium", 1.0)
    assert "difference" not in entry


def test_claims_have_a_p_value_where_there_are_queries(table):
    found = rows(table.markdown())
    assert found[-2] == [
        "b over a",
        "One Medium",
        "2 (2)",
        "+3.00 [+3.00, +3.00]",
        "0.5000",
        "0.5000",
    ]
    assert found[-1] == ["b over a", "Two Hard", "-", "+1.50", "-", "-"]


def test_the_table_describes_the_data_and_lists_failures(table):
    text = table.markdown()
    assert "These data are not the paper's, whose numbers" in text
    assert "Failed: c (no memory)" in text
    text = of_paper(table).markdown()
    assert "These data are the paper's." in text
    assert "`data.exclude`" in text
    excluding = Options("quick", table.options.workdir, changes={"data.exclude": "list.txt"})
    text = of_paper(dataclasses.replace(table, options=excluding)).markdown()
    assert "list.txt" in text
    without = [dataclasses.replace(row, paper={}) for row in EXPERIMENT.rows]
    unknown = dataclasses.replace(EXPERIMENT, rows=tuple(without))
    text = dataclasses.replace(table, experiment=unknown).markdown()
    assert "These data are not the paper's." in text


def test_files_contain_the_numbers_of_the_table(table, tmp_path):
    table = of_paper(table)
    table.write(tmp_path)
    content = json.loads((tmp_path / "toy_quick.json").read_text())
    assert content["environment"]["configuration"] == environment.digest(
        plan.fields(table.experiment, Options("quick", tmp_path / "elsewhere", "data"))
    )
    assert (tmp_path / "toy_quick.md").read_text() == table.markdown()
    assert content["cells"][0] == {
        "row": "a",
        "column": "One Medium",
        "paper": 1.0,
        "ours": 3.0,
        "low": 2.0,
        "high": 4.0,
        "difference": 2.0,
    }
    assert [claim["difference"] for claim in content["claims"]] == [3.0, 1.5]
    assert content["claims"][0]["queries"] == 2
    assert content["failures"] == ["c (no memory)"]
