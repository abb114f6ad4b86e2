from delg_jax.reports import charts
from delg_jax.reports.charts import HEIGHT, WIDTH, chart


def test_curves_go_from_corner_to_corner():
    records = [
        {"step": 10, "loss": 4.0, "scale": 1.0},
        {"step": 20, "loss": 1.0, "scale": 1.0},
        {"step": 30, "loss": 0.0},
    ]
    (drawn,) = charts.charts(records)
    assert drawn.title == "loss"
    width, height = float(WIDTH), float(HEIGHT)
    path = f"M0.0 0.0L{width / 2:.1f} {0.75 * height:.1f}L{width:.1f} {height:.1f}"
    assert drawn.curves == [("loss", path)]
    assert drawn.across[0] == ("10", 0.0)
    assert drawn.across[-1] == ("30", width)
    assert drawn.upward[0] == ("0", height)
    assert drawn.upward[-1] == ("4", 0.0)


def test_losses_accuracies_and_sparsity_are_apart():
    metrics = ("global_loss", "validation_loss", "global_accuracy", "sparsity_conv4", "scale")
    records = [{"step": step, **dict.fromkeys(metrics, 0.5)} for step in (1, 2)]
    names = [[name for name, _ in drawn.curves] for drawn in charts.charts(records)]
    assert names == [["global_loss", "validation_loss"], ["global_accuracy"], ["sparsity_conv4"]]


def test_without_two_records_there_is_nothing_to_draw():
    assert charts.charts([]) == []
    assert charts.charts([{"step": 1, "loss": 1.0}]) == []
    zeros = [{"step": step, "loss": 0.0} for step in (1, 2)]
    assert len(charts.charts(zeros)) == 1


def test_dots_stand_where_they_are_and_bars_on_zero():
    limits = ((0.0, 2.0), (-1.0, 1.0))
    corner, middle = f"{float(WIDTH)} 0.0", f"{float(WIDTH)} {HEIGHT / 2}"
    assert chart("", {"a": [(2, 1)]}, *limits, marks="dots").curves == [
        ("a", f"M{corner}L{corner}")
    ]
    assert chart("", {"a": [(2, 1)]}, *limits, marks="bars").curves == [
        ("a", f"M{middle}L{corner}")
    ]
    assert chart("", {"a": []}, *limits).curves == [("a", "")]
