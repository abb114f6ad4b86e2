import jax.numpy as jnp

from delg_jax import json_files
from delg_jax.training.metrics import MetricsWriter


def lines(folder):
    return json_files.read_lines(folder / "metrics.jsonl", "metrics", json_files.anything)


def test_records_are_appended_as_plain_numbers(tmp_path):
    writer = MetricsWriter(tmp_path / "logs", 0)
    assert writer.write(1, {"loss": jnp.float32(0.5)}) == {"loss": 0.5}
    writer.write(2, {"loss": 0.25})
    assert lines(tmp_path / "logs") == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write(step, {"loss": step})
    MetricsWriter(tmp_path, 3).write(4, {"loss": 40})
    assert [(r["step"], r["loss"]) for r in lines(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_half_a_line_left_by_a_kill_is_dropped(tmp_path):
    MetricsWriter(tmp_path, 0).write(1, {"loss": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    MetricsWriter(tmp_path, 9).write(3, {"loss": 3})
    assert [record["step"] for record in lines(tmp_path)] == [1, 3]


def test_reading_a_step_joins_its_records(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(3, {"loss": 3})
    writer.write(4, {"loss": 4})
    writer.write(4, {"validation_loss": 5})
    assert writer.read(4) == {"loss": 4, "validation_loss": 5}
    assert writer.read(7) == {}


def test_the_line_to_the_terminal_tells_the_essential(tmp_path, caplog):
    caplog.set_level("INFO")
    values = {"validation_loss": 0.25, "scale": 16, "attention_p50": 1, "update_norm": 2}
    MetricsWriter(tmp_path, 0).write(7, values)
    assert [r.getMessage() for r in caplog.records] == ["step 7: scale 16, validation_loss 0.25"]
    assert lines(tmp_path) == [{"step": 7, **values}]
