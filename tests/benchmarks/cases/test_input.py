import numpy as np
import pytest

from delg_jax.benchmarks.cases import input as input_bench
from tests import photographs


@pytest.fixture
def data(tmp_path):
    photographs.save(tmp_path / "0.jpg", photographs.draw(0, 90, 120))
    return (tmp_path / "0.jpg").read_bytes()


def test_boxes_lie_inside(data):
    boxes = np.array([input_bench.box(data, number) for number in range(200)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 90).all()
    assert (left + width <= 120).all()
    areas = height * width / (90 * 120)
    assert areas.min() < 0.15
    assert areas.max() > 0.85


def test_made_up_files_are_jpegs_of_the_shape(rng):
    data = input_bench._jpeg(rng, 20, 30)
    assert input_bench.EncodedImage(data).decode().shape == (20, 30, 3)


def test_pytorch_reads_a_crop_of_every_file(data):
    pytest.importorskip("torch", reason="the peer")
    boxes = np.array([input_bench.box(data, number) for number in range(3)])
    crops = input_bench._torch([data] * 3, boxes, 8)
    assert crops() == 3
