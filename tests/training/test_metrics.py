import logging
import pathlib
import sys
import time
import types
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax import json_files
from delg_jax.training import metrics
from delg_jax.training.metrics import MetricsWriter


def lines(folder):
    return json_files.read_lines(folder / "metrics.jsonl", "metrics", json_files.anything)


def test_records_are_appended_as_plain_numbers(tmp_path):
    writer = MetricsWriter(tmp_path / "logs", 0)
    assert writer.write(1, {"loss": jnp.float32(0.5)}) == {"loss": 0.5}
    writer.write(2, {"loss": 0.25})
    assert lines(tmp_path / "logs") == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_resumed_run_drops_later_records(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write(step, {"loss": step})
    MetricsWriter(tmp_path, 3).write(4, {"loss": 40})
    assert [(r["step"], r["loss"]) for r in lines(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_an_incomplete_last_line_is_dropped(tmp_path):
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


def test_the_log_line_shows_the_main_metrics(tmp_path, caplog):
    caplog.set_level("INFO")
    values = {"validation_loss": 0.25, "scale": 16, "attention_p50": 1, "update_norm": 2}
    MetricsWriter(tmp_path, 0).write(7, values)
    assert [r.getMessage() for r in caplog.records] == ["step 7: scale 16, validation_loss 0.25"]
    assert lines(tmp_path) == [{"step": 7, **values}]


def test_images_are_drawn_in_a_row_above_their_attention():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    scores = np.asarray([[[0.0, 1.0], [0.5, 0.25]], [[0.0, 0.0], [0.0, 0.0]]], np.float32)
    picture = metrics.attention_picture(images, scores)
    assert picture.shape == (8, 8, 3)
    np.testing.assert_array_equal(picture[:4, 4:], images[1])
    np.testing.assert_array_equal(picture[4, :, 0], [0, 0, 255, 255, 0, 0, 0, 0])
    np.testing.assert_array_equal(picture[7, :4, 2], [127, 127, 63, 63])


def test_without_the_extra_one_line_is_logged_and_nothing_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    caplog.set_level(logging.INFO)
    writer = MetricsWriter(tmp_path, 0, tensorboard=True)
    writer.write(1, {"loss": 0.5})
    writer.draw_attention(1, np.zeros((1, 4, 4, 3), np.uint8), jnp.ones((1, 1, 2, 2)))
    lines = [r.getMessage() for r in caplog.records if "TensorBoard" in r.getMessage()]
    (line,) = lines
    assert "pip install 'delg_jax[tensorboard]'" in line
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_files_hold_the_records(tmp_path):
    reason = "the extra [tensorboard] is not installed"
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason=reason)
    writer = MetricsWriter(tmp_path, 0, tensorboard=True)
    writer.write(3, {"loss": 0.5, "validation_loss": 0.25})
    writer.draw_attention(3, np.zeros((2, 4, 4, 3), np.uint8), jnp.ones((2, 1, 2, 2)))
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    values = {}
    for record in payloads(path.read_bytes()):
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            values[value.tag, event.step] = value
    assert values["train/loss", 3].simple_value == 0.5
    assert values["validation/loss", 3].simple_value == 0.25
    assert values["validation/attention", 3].image.height == 8
    assert "tensorflow" not in sys.modules


def test_the_first_lines_of_the_log_say_how_to_look(tmp_path, caplog):
    pytest.importorskip("tensorboardX", reason="the extra [tensorboard] is not installed")
    caplog.set_level(logging.INFO)
    folder = tmp_path / "a run"
    MetricsWriter(folder, 0, tensorboard=True).close()
    (line,) = [r.getMessage() for r in caplog.records]
    assert f"tensorboard --logdir='{folder / 'tensorboard'}'" in line


class OfflineRun:
    """What of a run of Weights & Biases is used, where the package is not installed."""

    runs: ClassVar[list] = []

    def __init__(self, **arguments):
        self.arguments, self.logged, self.finished, self.url = arguments, [], False, None
        self.offline = True
        self.dir = f"{arguments['dir']}/wandb/offline-run-1/files"
        self.runs.append(self)

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_weights_and_biases_gets_the_records_and_a_resumed_run_continues(
    tmp_path, monkeypatch, caplog
):
    package = types.SimpleNamespace(init=OfflineRun, Image=lambda picture: picture.shape)
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(OfflineRun, "runs", [])
    caplog.set_level(logging.INFO)
    for step in (3, 4):
        writer = MetricsWriter(tmp_path, step - 1, wandb="landmarks")
        writer.write(step, {"loss": 0.5, "validation_loss": 0.25})
        writer.draw_attention(step, np.zeros((2, 4, 4, 3), np.uint8), jnp.ones((2, 1, 2, 2)))
        writer.close()
    first, second = OfflineRun.runs
    assert first.arguments == second.arguments
    assert (first.arguments["project"], first.arguments["resume"]) == ("landmarks", "allow")
    assert first.logged == [
        (3, {"train/loss": 0.5, "validation/loss": 0.25}),
        (3, {"validation/attention": (8, 8, 3)}),
    ]
    assert first.finished
    assert f"wandb sync {tmp_path}/wandb/offline-run-1" in caplog.text


def test_weights_and_biases_offline(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb", reason="the extra [wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    caplog.set_level(logging.INFO)
    writer = MetricsWriter(tmp_path, 0, wandb="landmarks")
    writer.write(1, {"loss": 0.5})
    writer.draw_attention(1, np.zeros((2, 4, 4, 3), np.uint8), jnp.ones((2, 1, 2, 2)))
    writer.close()
    (line,) = [text for text in caplog.messages if text.startswith("Weights & Biases: ")]
    folder = pathlib.Path(line.rpartition(" ")[2])
    (file,) = folder.glob("run-*.wandb")
    deadline = time.monotonic() + 60  # another process of wandb writes it
    while b"train/loss" not in file.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"train/loss" in file.read_bytes()


def payloads(content):
    """Payloads of a file of TFRecords: length, its checksum, payload, its checksum."""
    start = 0
    while start < len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        yield content[start + 12 : start + 12 + length]
        start += 16 + length


def test_tensorboard_files_are_written_only_on_request(tmp_path):
    MetricsWriter(tmp_path, 0).write(1, {"loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
