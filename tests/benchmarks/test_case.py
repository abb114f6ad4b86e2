import pytest

from delg_jax.benchmarks import case
from delg_jax.benchmarks.case import Work


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    monkeypatch.setattr(case, "product_rate", lambda dtype: {"bfloat16": 200.0}.get(dtype, 100.0))
    monkeypatch.setattr(case, "bandwidth", lambda: 10.0)


def test_the_slower_of_the_two_rates_decides():
    found = case.least_time(Work(operations=300.0, bytes=20.0), 12.0)
    assert found["seconds"] == 3.0
    assert found["share"] == 0.25
    assert case.least_time(Work(operations=300.0, bytes=60.0), 12.0)["seconds"] == 6.0
    assert case.least_time(Work(operations=300.0, dtype="bfloat16"), 12.0)["seconds"] == 1.5


def test_rates_are_measured_only_for_what_is_counted():
    assert "bytes_per_second" not in case.least_time(Work(operations=1.0), 1.0)
    assert "products_per_second" not in case.least_time(Work(bytes=1.0), 1.0)


def test_rates_are_measured(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(case, "_CPU_SIDE", 8)
    monkeypatch.setattr(case, "_CPU_LENGTH", 8)
    for measure in (case.bandwidth, lambda: case.product_rate("float32")):
        assert measure() > 0
    case.bandwidth.cache_clear()
    case.product_rate.cache_clear()
