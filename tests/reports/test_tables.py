import pytest

from delg_jax.reports import tables


def test_columns_line_up():
    table = tables.markdown(("name", "n"), [("a", "10"), ("longer", "2")])
    assert table.splitlines() == [
        "| name   |  n |",
        "| ------ | -: |",
        "| a      | 10 |",
        "| longer |  2 |",
    ]


def test_a_table_without_rows_has_its_header():
    # Markdown wants a dash in every column
    assert tables.markdown(("name", "n"), []).splitlines() == ["| name |  n |", "| ---- | -: |"]


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        tables.markdown(("name", "n"), [("a", "b", "c")])


@pytest.fixture
def result():
    values = {"map": 12.345, "mp@5": 100.0}
    table = {"easy": values, "medium": {"map": 1.0, "mp@5": 2.0}, "hard": dict.fromkeys(values)}
    return {
        "methods": {"global": table, "local": table},
        "seconds": {"global": 0.5, "local": 3.0},
        "megabytes": {"global": 12.4, "local": None},
        "queries": 4,
    }


def test_retrieval_has_a_column_for_each_metric_and_protocol(result):
    header, _, first, second = tables.retrieval_table(result).splitlines()
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    assert cells == [
        "method", "E map", "M map", "H map", "E mp@5", "M mp@5", "H mp@5", "ms/query", "MB",
    ]  # fmt: skip
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells == ["global", "12.35", "1.00", "-", "100.00", "2.00", "-", "125.0", "12"]
    assert [cell.strip() for cell in second.strip("|").split("|")][-2:] == ["750.0", "-"]


def test_results_that_counted_no_memory_have_a_row(result):
    del result["megabytes"]
    assert tables.retrieval_table(result).splitlines()[2].rstrip(" |").endswith("-")


def test_no_methods_or_queries_are_no_error(result):
    assert "method" in tables.retrieval_table({**result, "methods": {}})
    assert "500.0" in tables.retrieval_table({**result, "queries": 0})


def test_training_metrics_are_sorted_with_four_digits():
    rows = tables.training_table({"loss": 0.123456, "accuracy": 1.0}).splitlines()[2:]
    assert [row.split()[1::2] for row in rows] == [["accuracy", "1"], ["loss", "0.1235"]]
