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


def test_names_cannot_leave_their_cell():
    names = ["a|b", "a\nb", "\x1b[31mred", "\u202egpj.exe", "café 北京.jpg"]
    table = tables.markdown(("name", "n"), [(name, "1") for name in names])
    lines = table.splitlines()
    assert len(lines) == 2 + len(names)
    assert all(line.isprintable() for line in lines)
    shown = [line.rpartition("|  1 |")[0].strip("| ") for line in lines[2:]]
    assert shown == [r"a\|b", r"a\nb", r"\x1b[31mred", r"\u202egpj.exe", "café 北京.jpg"]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


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
    assert cells(header) == [
        "method", "E map", "M map", "H map", "E mp@5", "M mp@5", "H mp@5", "ms/query", "MB",
    ]  # fmt: skip
    assert cells(first) == ["global", "12.35", "1.00", "-", "100.00", "2.00", "-", "125.0", "12"]
    assert cells(second)[-2:] == ["750.0", "-"]


def test_results_that_counted_no_memory_have_a_row(result):
    del result["megabytes"]
    assert tables.retrieval_table(result).splitlines()[2].rstrip(" |").endswith("-")


def test_no_methods_or_queries_are_no_error(result):
    assert "method" in tables.retrieval_table({**result, "methods": {}})
    assert "500.0" in tables.retrieval_table({**result, "queries": 0})


def test_metrics_of_a_single_protocol_need_no_initial(result):
    one = {"retrieval": {"map@100": 50.0, "mean_position": 3.25}}
    rows = tables.retrieval_table({**result, "methods": {"global": one}}).splitlines()
    assert cells(rows[0])[1:3] == ["map@100", "mean_position"]
    assert cells(rows[2])[1:3] == ["50.00", "3.25"]


@pytest.fixture
def doubtful(result):
    bounds = {"easy": [10.0, 15.04], "medium": [0.5, 1.56], "hard": [None, None]}
    gain = {"over": "global", "difference": 3.456, "low": 1.0, "high": 5.0, "p_value": 0.0123}
    unknown = {**dict.fromkeys(gain), "over": "global"}
    methods = {name: result["methods"]["global"] for name in ("global", "global+sp")}
    intervals = dict.fromkeys(methods, bounds)
    comparisons = {"global+sp": {"easy": gain, "medium": gain, "hard": unknown}}
    return {**result, "methods": methods, "intervals": intervals, "comparisons": comparisons}


def test_intervals_and_gains_of_medium_and_hard(doubtful):
    header, _, first, second = map(cells, tables.interval_table(doubtful).splitlines())
    assert header == [
        "method",
        "M map [95 %]",
        "H map [95 %]",
        "M gain, p (Holm)",
        "H gain, p (Holm)",
    ]
    assert first == ["global", "1.00 [0.5, 1.6]", "-", "-", "-"]
    assert second == ["global+sp", "1.00 [0.5, 1.6]", "-", "+3.46, 0.012", "-"]


def test_results_without_intervals_have_no_second_table(result):
    assert tables.interval_table(result) == ""
    assert tables.interval_table({**result, "methods": {}, "intervals": {}}) == ""


def test_pairs_are_one_line(result):
    assert tables.pairs_line(result) == ""
    shares = {"average_precision": 91.234, "low": 89.96, "high": 93.0}
    line = tables.pairs_line({"pairs": {"positives": 10, "negatives": 90, **shares}})
    counts = "(10 of one landmark, 90 of two)"
    assert line == f"average precision of pairs by inliers {counts}: 91.23 [90.0, 93.0]"


def test_training_metrics_are_sorted_with_four_digits():
    rows = tables.training_table({"loss": 0.123456, "accuracy": 1.0}).splitlines()[2:]
    assert [row.split()[1::2] for row in rows] == [["accuracy", "1"], ["loss", "0.1235"]]


def test_skipped_pairs_are_counted():
    counts = {"positives": 10, "negatives": 90, "skipped_positives": 2, "skipped_negatives": 0}
    shares = {"average_precision": 91.234, "low": 90.0, "high": 93.0}
    line = tables.pairs_line({"pairs": {**counts, **shares}})
    assert "(10 of one landmark, 90 of two; skipped 2 and 0 of them)" in line
