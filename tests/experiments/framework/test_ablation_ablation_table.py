from experiments.framework.ablation import ablation_table


def test_the_table_marks_what_is_configured():
    scores = {"local": {"easy": 1.0, "medium": 2.0, "hard": 3.0}}
    empty = {"local": {"easy": 1.0, "medium": 2.0, "hard": None}}
    text = ablation_table("search.threshold", {"0.5": scores, "0.6": empty}, "0.6")
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert found[0] == ["search.threshold", "local M / H"]
    assert found[2:] == [["0.5", "2.00 / 3.00"], ["0.6 *", "2.00 / -"]]
