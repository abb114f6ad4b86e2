import gc

import numpy as np
import pytest

from delg_jax.evaluation import cost
from delg_jax.evaluation.cost import Cost, measured


def linux():
    with measured() as nothing:
        pass
    return nothing.megabytes is not None


def test_the_peak_counts_though_it_is_gone_at_the_end():
    if not linux():
        pytest.skip("only Linux tells the peak of the memory")
    gc.collect()  # what other tests left must not go while the block is measured
    with measured() as large:
        np.ones(2**27, np.uint8).sum()  # 128 megabytes
    with measured() as small:
        pass
    # Threads of other tests may give memory back in the block, but not a hundred megabytes.
    assert large.megabytes > 64
    assert small.megabytes < 32
    assert large.seconds > 0


def test_memory_is_unknown_where_nobody_counts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_PROCESS", tmp_path / "absent")
    with measured() as found:
        pass
    assert found.megabytes is None
    monkeypatch.setattr(cost, "_PROCESS", tmp_path)
    (tmp_path / "status").write_text("Name: test\nVmRSS:\t 2048 kB\nVmHWM:\t 5120 kB\n")
    with measured() as found:
        pass
    assert found.megabytes == 3
    assert (tmp_path / "clear_refs").read_text() == "5"
    (tmp_path / "status").write_text("Name: test\n")
    with measured() as found:
        pass
    assert found.megabytes is None


def test_costs_of_work_after_work():
    assert Cost(1.0, 5.0) + Cost(2.0, 3.0) == Cost(3.0, 5.0)
    assert Cost(1.0, None) + Cost(2.0, 3.0) == Cost(3.0, None)
