import os
import signal
import time

import pytest

from delg_jax.cli.main import main
from delg_jax.features.store import FeatureStore
from delg_jax.search import asmk_store
from delg_jax.search.graph_store import GraphStore
from tests.folders import contents
from tests.photographs import make_revisited
from tests.search.test_asmk import equal
from tests.tiny import command_line, revisited_config
from tests.training import programs

IMAGES = 24
DEADLINE = 300  # seconds that a program may take to write a chunk


@pytest.mark.parametrize(("features", "name"), [("local", "graph"), ("global", "global_graph")])
def test_the_graph_of_the_database_is_built_once(tmp_path, capsys, features, name):
    config = revisited_config(make_revisited(tmp_path / "photographs", places=2))
    config = config.copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.search.graph_neighbours = 3
    flags = [*command_line(config), f"--workdir={tmp_path / 'run'}", f"--features={features}"]
    assert main(["index", *flags]) == 0
    folder = tmp_path / "run" / "index" / name
    assert capsys.readouterr().out == f"{folder}: 4 images, 3 neighbours each\n"
    images = ["place0_near", "place0_far", "place1_near", "place1_far"]
    database = FeatureStore(tmp_path / "run" / "features" / "database")
    stored = GraphStore(folder, images, features=database)
    assert stored.graph().indices[:, 0].tolist() == [0, 1, 2, 3]
    made = (folder / "graph.json").stat().st_mtime_ns
    assert main(["index", *flags]) == 0
    assert (folder / "graph.json").stat().st_mtime_ns == made
    assert main(["index", *flags, "--config.search.graph_neighbours=0"]) == 2
    assert "config.search.graph_neighbours = 0: " in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["cann", "ivf", "asmk"])
def test_the_index_of_an_approximate_engine_is_built_once(tmp_path, capsys, engine):
    config = revisited_config(make_revisited(tmp_path / "photographs", places=2))
    config = config.copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.search.engine, config.search.ivf.count, config.search.cann.grids = engine, 4, 1
    config.search.asmk.words = 4
    flags = [*command_line(config), f"--workdir={tmp_path / 'run'}"]
    folder = tmp_path / "run" / "index" / engine / "index"
    for _ in range(2):
        assert main(["index", *flags]) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"{folder}: index of the engine {engine}\n")
    made = folder.stat().st_ino
    assert main(["evaluate", *flags, "--config.eval.methods=('local',)"]) == 0
    assert folder.stat().st_ino == made
    assert "| local " in capsys.readouterr().out


def test_without_a_stored_graph_none_is_built(tmp_path, capsys):
    config = revisited_config(make_revisited(tmp_path / "photographs", places=2))
    config = config.copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.search.engine, config.search.asmk.words, config.search.candidates = "asmk", 4, 400
    config.rerank.mds.graph, config.eval.methods = "on_the_fly", ("local+mds",)
    flags = [*command_line(config), f"--workdir={tmp_path / 'run'}"]
    assert main(["index", *flags]) == 0
    folder = tmp_path / "run" / "index" / "asmk" / "index"
    assert capsys.readouterr().out.endswith(f"{folder}: index of the engine asmk\n")
    assert main(["evaluate", *flags]) == 0
    assert not (tmp_path / "run" / "index" / "graph").exists()
    assert "| local+mds " in capsys.readouterr().out


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = make_revisited(tmp_path_factory.mktemp("photographs"), places=IMAGES // 2)
    config = revisited_config(folder).copy_and_resolve_references().unlock()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.search.graph_block = 1
    return config.lock()


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """The workdir of one process that nothing stopped."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    programs.finish(programs.start(config, workdir, 1, (), "index"))
    return workdir


@pytest.fixture
def workdir(undisturbed, tmp_path):
    """Another one, which has the features."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "features").symlink_to(undisturbed / "features")
    return tmp_path / "run"


@pytest.mark.slow
def test_a_killed_job_resumes_to_the_same_bytes(config, workdir, undisturbed):
    folder = workdir / "index" / "graph"
    for count in (1, 8, 16):
        program = programs.start(config, workdir, 1, (), "index")
        deadline = time.monotonic() + DEADLINE
        while len(list(folder.glob("*/indices/c.*.0"))) < count:
            assert program.poll() is None, program.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()
        assert program.returncode == -signal.SIGKILL
        assert not (folder / "graph.json").exists()
    programs.finish(programs.start(config, workdir, 1, (), "index"))
    assert contents(folder) == contents(undisturbed / "index" / "graph")


@pytest.mark.slow
def test_two_processes_make_the_graph_of_one(config, workdir, undisturbed):
    outputs = programs.finish(*programs.start_processes(config, workdir, 2, 1, (), "index"))
    folder = workdir / "index" / "graph"
    assert f"{folder}: {IMAGES} images, {IMAGES} neighbours each" in outputs[0]
    assert "neighbours each" not in outputs[1]
    assert contents(folder) == contents(undisturbed / "index" / "graph")


@pytest.mark.slow
def test_two_processes_make_the_inverted_file_of_one(config, undisturbed, tmp_path):
    config = config.copy_and_resolve_references().unlock()
    config.search.engine, config.search.asmk.words = "asmk", 4
    config.lock()
    parts = []
    for processes in (1, 2):
        workdir = tmp_path / str(processes)
        workdir.mkdir()
        (workdir / "features").symlink_to(undisturbed / "features")
        programs.finish(*programs.start_processes(config, workdir, processes, 1, (), "index"))
        (part,) = asmk_store.load(workdir / "index" / "asmk" / "index").parts
        parts.append(part)
    equal(*parts)
