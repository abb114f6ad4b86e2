from delg_jax.reports import charts


def test_curves_go_from_corner_to_corner():
    records = [
        {"step": 10, "loss": 4.0, "scale": 1.0},
        {"step": 20, "loss": 1.0, "scale": 1.0},
        {"step": 30, "loss": 0.0},
    ]
    (chart,) = charts.charts(records)
    assert chart.title == "loss"
    width, height = float(charts.WIDTH), float(charts.HEIGHT)
    middle, low = width / 2, 0.75 * height
    points = f"0.0,0.0 {middle:.1f},{low:.1f} {width:.1f},{height:.1f}"
    assert chart.curves == [("loss", points)]
    assert chart.across[0] == ("10", 0.0)
    assert chart.across[-1] == ("30", width)
    assert chart.upward[0] == ("0", height)
    assert chart.upward[-1] == ("4", 0.0)


def test_losses_and_accuracies_are_apart():
    records = [
        {"step": step, "global_loss": 1.0, "validation_loss": 2.0, "global_accuracy": 0.5}
        for step in (1, 2)
    ]
    loss, accuracy = charts.charts(records)
    assert [name for name, _ in loss.curves] == ["global_loss", "validation_loss"]
    assert [name for name, _ in accuracy.curves] == ["global_accuracy"]


def test_without_two_records_there_is_nothing_to_draw():
    assert charts.charts([]) == []
    assert charts.charts([{"step": 1, "loss": 1.0}]) == []
    zeros = [{"step": step, "loss": 0.0} for step in (1, 2)]
    assert len(charts.charts(zeros)) == 1
