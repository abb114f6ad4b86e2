import numpy as np

from delg_jax.benchmarks.cases import memory


def test_rows_on_disk_are_those_that_were_written(tmp_path):
    rows = memory._written(tmp_path, (5, 2, 3), np.float16)
    whole = np.fromfile(tmp_path / "rows", np.float16).reshape(5, 2, 3)
    assert len(rows) == 5
    np.testing.assert_array_equal(rows[1:4], whole[1:4])
    np.testing.assert_array_equal(rows[3:9], whole[3:])
    assert rows[5:9].shape == (0, 2, 3)


def test_every_stage_runs_and_names_what_bounds_it(monkeypatch):
    monkeypatch.setattr(memory, "_in_new_process", lambda stage, *numbers: stage(*numbers))
    rows = memory.measure(**memory.SIZES["tiny"])
    assert [row["stage"] for row in rows] == ["global", "local", "graph", "verification"]
    assert [row["images"] for row in rows] == [64, 8, 8, 3]
    assert rows[0]["bound"] == "search.global_block=16"
    assert all(row["megabytes"] is None or row["megabytes"] >= 0 for row in rows)
