from delg_jax.cli.main import main
from delg_jax.search.graph import SimilarityGraph
from tests.photographs import make_revisited
from tests.tiny import command_line, retrieval_config


def test_the_graph_of_the_database_is_built_once(tmp_path, capsys):
    config = retrieval_config(make_revisited(tmp_path / "photographs", places=2))
    config = config.copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.search.graph_neighbours = 3
    flags = [*command_line(config), f"--workdir={tmp_path / 'run'}"]
    assert main(["index", *flags]) == 0
    path = tmp_path / "run" / "index" / "graph.npz"
    assert capsys.readouterr().out == f"{path}: 4 images, 3 neighbours each\n"
    assert SimilarityGraph.load(path).indices[:, 0].tolist() == [0, 1, 2, 3]
    made = path.stat().st_mtime_ns
    assert main(["index", *flags]) == 0
    assert path.stat().st_mtime_ns == made
    assert main(["index", *flags, "--config.search.graph_neighbours=0"]) == 2
    assert "config.search.graph_neighbours = 0: must be at least 1" in capsys.readouterr().err
