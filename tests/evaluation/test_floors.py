import pytest

from delg_jax.evaluation import floors
from delg_jax.evaluation.contenders import Work


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    monkeypatch.setattr(floors, "product_rate", lambda dtype: {"bfloat16": 200.0}.get(dtype, 100.0))
    monkeypatch.setattr(floors, "bandwidth", lambda: 10.0)


def test_the_slower_of_the_two_is_the_floor():
    found = floors.floor(Work(operations=300.0, bytes=20.0), 12.0)
    assert found["seconds"] == 3.0
    assert found["share"] == 0.25
    assert floors.floor(Work(operations=300.0, bytes=60.0), 12.0)["seconds"] == 6.0
    assert floors.floor(Work(operations=300.0, dtype="bfloat16"), 12.0)["seconds"] == 1.5


def test_what_is_not_counted_has_no_rate():
    assert "bytes_per_second" not in floors.floor(Work(operations=1.0), 1.0)
    assert "products_per_second" not in floors.floor(Work(bytes=1.0), 1.0)


def test_rates_are_measured(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(floors._SIDES, "cpu", 8)
    monkeypatch.setitem(floors._WORDS, "cpu", 8)
    for measure in (floors.bandwidth, lambda: floors.product_rate("float32")):
        assert measure() > 0
    floors.bandwidth.cache_clear()
    floors.product_rate.cache_clear()
