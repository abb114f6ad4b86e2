import logging
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.training import metrics
from delg_jax.training.metrics import MetricsWriter


def test_pictures_stand_in_a_row_above_their_attention():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    scores = np.asarray([[[0.0, 1.0], [0.5, 0.25]], [[0.0, 0.0], [0.0, 0.0]]], np.float32)
    picture = metrics.attention_picture(images, scores)
    assert picture.shape == (8, 8, 3)
    np.testing.assert_array_equal(picture[:4, 4:], images[1])
    np.testing.assert_array_equal(picture[4, :, 0], [0, 0, 255, 255, 0, 0, 0, 0])
    np.testing.assert_array_equal(picture[7, :4, 2], [127, 127, 63, 63])


def test_without_the_extra_there_is_one_line_and_no_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    caplog.set_level(logging.INFO)
    writer = MetricsWriter(tmp_path, 0, tensorboard=True)
    writer.write(1, {"loss": 0.5})
    writer.draw(1, np.zeros((1, 4, 4, 3), np.uint8), jnp.ones((1, 1, 2, 2)))
    lines = [r.getMessage() for r in caplog.records if "TensorBoard" in r.getMessage()]
    assert lines == ["no TensorBoard files: pip install 'delg_jax[tensorboard]' for them"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_gets_what_the_records_hold(tmp_path):
    reason = "the extra [tensorboard] is not installed"
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason=reason)
    writer = MetricsWriter(tmp_path, 0, tensorboard=True)
    writer.write(3, {"loss": 0.5, "validation_loss": 0.25})
    writer.draw(3, np.zeros((2, 4, 4, 3), np.uint8), jnp.ones((2, 1, 2, 2)))
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    values = {}
    for record in records(path.read_bytes()):
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            values[value.tag, event.step] = value
    assert values["train/loss", 3].simple_value == 0.5
    assert values["validation/loss", 3].simple_value == 0.25
    assert values["validation/attention", 3].image.height == 8
    assert "tensorflow" not in sys.modules


def records(content):
    """Payloads of a file of TFRecords: length, its checksum, payload, its checksum."""
    start = 0
    while start < len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        yield content[start + 12 : start + 12 + length]
        start += 16 + length


def test_no_tensorboard_without_wanting_it(tmp_path):
    MetricsWriter(tmp_path, 0).write(1, {"loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
