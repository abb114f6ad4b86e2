import importlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from experiments.benchmarks import bench_gpu, optional_packages

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Hides packages from every interpreter that has it on its path
HIDING = f"""
    import importlib.machinery as machinery
    hidden = {(*optional_packages.PACKAGES, "faiss", "sklearn", "tensorflow")!r}
    find = machinery.PathFinder.find_spec

    def without(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else find(name, path, target)

    machinery.PathFinder.find_spec = classmethod(without)
"""


@pytest.fixture
def bare(tmp_path):
    """The environment of a machine with jax and flax but without the packages for data."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(HIDING))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}


def test_the_kernels_equal_numpy():
    found = bench_gpu.check()
    assert found["global"] == 0
    assert max(found.values()) < bench_gpu._TOLERANCE


def test_a_wrong_kernel_fails(monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "check", lambda: {"local": 1e-2, "mds": 0.0})
    assert bench_gpu.main(["check"]) == 1
    assert "local: 0.01" in capsys.readouterr().out


def test_the_result_and_a_trace_are_written(tmp_path, capsys):
    assert bench_gpu.main(["global_one", "--size=tiny", f"--out={tmp_path}", "--trace"]) == 0
    result = json.loads((tmp_path / "bench_global_one.json").read_text())
    assert result["implementations"][0]["kind"] == "ours"
    assert list(tmp_path.glob("trace_global_one/**/*.xplane.pb"))
    assert "global_search" in capsys.readouterr().out


def test_every_case_can_be_imported_without_the_packages_for_data(bare):
    program = """
        from experiments.benchmarks import bench_gpu
        from delg_jax.benchmarks import bench
        for name in ("train", "extract_r50_7", "verify", "global", "local", "binary", "mds"):
            bench.load(name)
        print(*bench_gpu.MISSING)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=bare, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(optional_packages.PACKAGES)


def test_only_missing_packages_become_empty_modules(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(optional_packages, "PACKAGES", ("json", "surely_absent"))
    assert optional_packages.install_empty_modules() == ("surely_absent",)
    assert importlib.import_module("json") is json
    module = importlib.import_module("surely_absent.inner")

    class Child(module.Thing.Part, option=1):
        pass

    assert isinstance(Child("any", argument=1), Child)
    settings = module.ConfigDict({"a": 1})
    settings.b = settings.a + 1
    assert (settings["b"], settings.a) == (2, 1)
    with pytest.raises(AttributeError):
        settings.c  # noqa: B018
    for name in ("surely_absent", "surely_absent.inner"):
        del sys.modules[name]


@pytest.mark.slow  # ten processes, each compiles
def test_the_script_runs_all_of_it(tmp_path, bare):
    command = ["bash", str(ROOT / "experiments/bench_gpu.sh"), "--size=tiny"]
    environment = {**bare, "OUT": str(tmp_path / "out"), "LIMIT_SCALE": "20"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    logs = {path.name: path.read_text()[-500:] for path in tmp_path.glob("out/*.log")}
    assert done.returncode == 0, (done.stdout, logs)
    names = {path.stem.removeprefix("bench_") for path in tmp_path.glob("out/bench_*.json")}
    assert {"train", "verify", "mds", "global", "local", "binary", "extract_r50_7"} <= names
