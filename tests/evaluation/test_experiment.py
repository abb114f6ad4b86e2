import json
import shutil
import types

import jax
import numpy as np
import pytest

import delg_jax.evaluation.experiment as evaluation_of_experiment
import delg_jax.features.experiment as features_of_experiment
from configs import default
from delg_jax import configuration, json_files
from delg_jax import workdir as outputs
from delg_jax.errors import UserError
from delg_jax.evaluation import evaluate, revisited, score
from delg_jax.evaluation.experiment import decided_by
from delg_jax.features import extract
from delg_jax.retrieval import methods
from delg_jax.search import index as search_stage
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.graph_store import GraphStore
from tests.photographs import make_revisited, truncate
from tests.tiny import revisited_config

# The packages have functions of these names, which hide the modules

PLACES = 4
METHODS = methods.METHODS


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = revisited_config(make_revisited(tmp_path_factory.mktemp("photographs"), PLACES))
    # Few images, which a random network finds alike
    config = changed(config, "rerank.diffusion.spread", 0.3)
    config = changed(config, "rerank.qe.images", 1)
    return changed(config, "eval.methods", METHODS)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, evaluate(config, folder)


def changed(config, path, value):
    config = config.copy_and_resolve_references()
    section, _, name = path.rpartition(".")
    tree = config
    for part in section.split("."):
        tree = tree[part]
    tree[name] = value
    return config.lock()


def without_seconds(result):
    costs = ("seconds", "milliseconds_per_query", "megabytes")
    return {name: value for name, value in result.items() if name not in costs}


@pytest.fixture
def nothing_is_extracted(monkeypatch):
    def check(loader, extractor, store, *_):
        assert store.missing() == []

    monkeypatch.setattr(features_of_experiment, "extract_to_store", check)


def test_metrics_are_written_as_returned(run):
    folder, result = run
    assert json_files.read(folder / "metrics.json", "metrics", json_files.anything) == result
    costs = ("seconds", "milliseconds_per_query", "megabytes")
    doubts = ("average_precisions", "intervals", "comparisons", "query_landmarks")
    assert result.keys() == {"methods", *doubts, *costs, "images", "queries", "skipped"}
    nothing = {"images": 0, "queries": 0, "positives": 0}
    assert result["skipped"] == {"global": nothing, "local": nothing}
    assert (result["images"], result["queries"]) == (2 * PLACES, PLACES)
    for name in ("methods", "average_precisions", "intervals", *costs):
        assert tuple(result[name]) == METHODS
    assert {name for name in METHODS if "+" in name} == result["comparisons"].keys()
    for method, seconds in result["seconds"].items():
        assert seconds > 0
        assert result["milliseconds_per_query"][method] == pytest.approx(1000 * seconds / PLACES)
        assert result["megabytes"][method] is None or result["megabytes"][method] >= 0
    for table in result["methods"].values():
        assert table.keys() == {"easy", "medium", "hard"}
        for metrics in table.values():
            assert metrics.keys() == {"map", "mp@1", "mp@5", "mp@10"}
            assert all(0 <= value <= 100 for value in metrics.values())


def test_rankings_are_permutations_that_give_the_metrics(run, config):
    folder, result = run
    with np.load(folder / "rankings.npz") as file:
        rankings = dict(file)
    verified = ("global+sp", "local+sp")
    spatial = {f"{method}:{protocol}" for method in verified for protocol in revisited.PROTOCOLS}
    assert rankings.keys() == {*METHODS, *spatial}
    for ranks in rankings.values():
        assert ranks.dtype == np.int32
        np.testing.assert_array_equal(np.sort(ranks, axis=1), [range(2 * PLACES)] * PLACES)
    truth = evaluation_of_experiment.extract(config, folder).data.ground_truth
    for protocol in revisited.PROTOCOLS:
        name = f"global+sp:{protocol}"
        expected = revisited.evaluate(rankings[name].T, truth)[protocol]["map"]
        found = result["methods"]["global+sp"][protocol]["map"]
        assert found == pytest.approx(100 * expected)
        precisions = result["average_precisions"]["global+sp"][protocol]
        known = [value for value in precisions if value is not None]
        assert found == pytest.approx(sum(known) / len(known))
        assert score({"all": rankings[name]}, truth, (1,))[protocol]["map"] == found


@pytest.mark.parametrize("method", METHODS)
def test_a_query_finds_its_own_picture_first(run, method):
    folder, result = run
    with np.load(folder / "rankings.npz") as file:
        assert file[method][:, 0].tolist() == [2 * place for place in range(PLACES)]
    assert result["methods"][method]["easy"]["map"] == pytest.approx(100)
    assert result["methods"][method]["medium"]["mp@1"] == pytest.approx(100)


def test_a_second_run_uses_what_is_there(run, config, nothing_is_extracted, monkeypatch):
    folder, result = run
    monkeypatch.setattr(search_stage, "fill", None)
    assert without_seconds(evaluate(config, folder)) == without_seconds(result)


def test_a_changed_re_ranking_is_refused_unless_overwritten(
    run, config, nothing_is_extracted, monkeypatch
):
    folder, _ = run
    other = changed(config, "rerank.sp.short_list", 1)
    before = (folder / "metrics.json").read_bytes()
    names = r"workdir = .*evaluation'.*config\.rerank\.sp\.short_list: 4 -> 1"
    with pytest.raises(UserError, match=names):
        evaluate(other, folder)
    assert (folder / "metrics.json").read_bytes() == before
    monkeypatch.setattr(search_stage, "fill", None)
    result = evaluate(other, folder, overwrite=True)
    table = result["methods"]
    assert table["global+sp"]["medium"]["map"] == table["global"]["medium"]["map"]
    evaluate(config, folder, overwrite=True)


def test_a_changed_search_rebuilds_the_graph(run, config, tmp_path, nothing_is_extracted):
    folder, _ = run
    (tmp_path / "features").symlink_to(folder / "features")
    evaluate(changed(config, "eval.methods", ("local+mds",)), tmp_path)
    other = changed(config, "search.graph_neighbours", 2)
    other = changed(other, "eval.methods", ("local+mds",))
    with pytest.raises(UserError, match=r"config\.search\.graph_neighbours: 1000 -> 2"):
        evaluate(other, tmp_path)
    evaluate(other, tmp_path, overwrite=True)
    database = evaluation_of_experiment.extract(other, tmp_path).database
    folder = tmp_path / "index" / "graph"
    graph = GraphStore(folder, database.names, features=database).graph()
    assert graph.indices.shape == (2 * PLACES, 2)


def test_only_the_methods_asked_for_are_run(run, config, tmp_path, monkeypatch):
    (tmp_path / "features").symlink_to(run[0] / "features")
    for module, name in ((methods, "rank_locally"), (methods, "embed"), (methods, "verify")):
        monkeypatch.setattr(module, name, None)
    result = evaluate(changed(config, "eval.methods", ("global",)), tmp_path)
    assert list(result["methods"]) == ["global"]
    assert not (tmp_path / "index").exists()


def test_rankings_may_keep_the_first_images_alone(run, config, tmp_path):
    names = ("global", "global+superglobal", "global+qe", "global+sp", "local", "local+mds")
    (tmp_path / "features").symlink_to(run[0] / "features")
    short = changed(changed(config, "eval.methods", names), "eval.depth", 4)
    for path, value in {
        "eval.kappas": (1, 4),
        "rerank.mds.short_list": 4,
        "rerank.superglobal.short_list": 4,
        "rerank.superglobal.neighbours": 3,
        "rerank.sp.short_list": 4,
    }.items():
        short = changed(short, path, value)
    evaluate(short, tmp_path)
    extracted = evaluation_of_experiment.extract(short, tmp_path)
    search = SearchSettings.of(short.search)
    whole = methods.search("global", extracted, search)
    cut = methods.search("global", extracted, search, depth=4)
    refined = [methods.refine(extracted, found, short.rerank.superglobal) for found in (whole, cut)]
    for found in refined:
        by_image = dict(zip(whole.images[0].tolist(), whole.similarities[0].tolist(), strict=True))
        assert [by_image[image] for image in found.images[0]] == found.similarities[0].tolist()
    with np.load(run[0] / "rankings.npz") as full, np.load(tmp_path / "rankings.npz") as kept:
        for method in names:
            assert kept[method].shape == (PLACES, 4)
        for method in ("global", "global+qe", "global+sp", "local"):
            np.testing.assert_array_equal(kept[method], full[method][:, :4])


def test_local_rankings_put_equal_images_in_order(config, run):
    extracted = evaluation_of_experiment.extract(config, run[0])
    ranking = methods.rank_locally(extracted, SearchSettings.of(config.search))
    assert (np.diff(ranking.similarities, axis=1) <= 0).all()
    flat = config.search.copy_and_resolve_references()
    flat.threshold = 1.5  # no feature ever matches
    found = methods.rank_locally(extracted, SearchSettings.of(flat))
    np.testing.assert_array_equal(found.images, [range(2 * PLACES)] * PLACES)


def test_the_result_is_the_same_on_any_run(run, config, tmp_path):
    again = evaluate(config, tmp_path)
    assert without_seconds(again) == without_seconds(run[1])
    with np.load(run[0] / "rankings.npz") as one, np.load(tmp_path / "rankings.npz") as other:
        jax.tree.map(np.testing.assert_array_equal, dict(one), dict(other))


@pytest.fixture(scope="module")
def incomplete(config, tmp_path_factory):
    """The configuration of photographs two of which are skipped, and a workdir of features."""
    folder = tmp_path_factory.mktemp("incomplete")
    root = make_revisited(folder / "photographs", PLACES)
    for name in ("place1_near", "query0"):
        truncate(root / "jpg" / f"{name}.jpg")
    config = changed(changed(config, "data.root", str(root)), "data.max_skipped", 1)
    extract(config, folder)
    return config, folder


@pytest.mark.parametrize("engine", ["exact", "ivf", "asmk"])
def test_skipped_photographs_improve_nothing(incomplete, run, tmp_path, engine):
    gone, lost = 2, 0  # place1_near, which the query 1 should find; and the query 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "features").symlink_to(incomplete[1] / "features")
    config = changed(incomplete[0], "search.engine", engine)
    config = changed(config, "search.ivf.count", 4)
    config = changed(config, "search.asmk.words", 4)
    result = evaluate(config, tmp_path / "run")
    counts = {"images": 1, "queries": 1, "positives": 1}
    assert result["skipped"] == {"global": counts, "local": counts}
    truth = evaluation_of_experiment.extract(config, tmp_path / "run").data.ground_truth
    with np.load(tmp_path / "run" / "rankings.npz") as file:
        rankings = dict(file)
    for ranks in rankings.values():
        assert ranks[:, -1].tolist() == [gone] * PLACES
        np.testing.assert_array_equal(np.sort(ranks, axis=1), [range(2 * PLACES)] * PLACES)
    asked = np.arange(PLACES)[:, None] != lost
    for method in METHODS:
        own = {p: rankings.get(f"{method}:{p}", rankings[method]) for p in revisited.PROTOCOLS}
        own = {p: np.where((ranks != gone) & asked, ranks, -1) for p, ranks in own.items()}
        assert score(own, truth, tuple(config.eval.kappas)) == result["methods"][method]
        for protocol, precisions in result["average_precisions"][method].items():
            assert precisions[lost] == 0
            whole = run[1]["average_precisions"][method][protocol]
            assert (precisions[1] is None) == (whole[1] is None)
        assert result["average_precisions"][method]["easy"][1] == 0
        assert result["methods"][method]["easy"]["map"] <= 50


def test_another_seed_is_refused_and_the_stored_one_is_that_of_the_rankings(
    run, config, tmp_path, monkeypatch
):
    extracted = evaluation_of_experiment.extract(
        config, run[0]
    )  # as weights from a file, which no seed changes
    monkeypatch.setattr(evaluation_of_experiment, "extract", lambda *_: extracted)
    config = changed(config, "eval.methods", ("global+sp",))
    other = config.copy_and_resolve_references()
    other.seed = 7
    evaluate(config, tmp_path)
    with pytest.raises(UserError, match=r"evaluation'.*config\.seed: 0 -> 7"):
        evaluate(other, tmp_path)
    assert outputs.stored_config(tmp_path / "evaluation")["seed"] == 0
    evaluate(other, tmp_path, overwrite=True)
    assert outputs.stored_config(tmp_path / "evaluation")["seed"] == 7
    # What decides nothing is stored as it was at last
    evaluate(changed(other, "rerank.sp.pair_block", 3), tmp_path)
    assert outputs.stored_config(tmp_path / "evaluation")["rerank.sp.pair_block"] == 3


def test_results_of_anything_else_are_gone_before_new_ones_are_made(
    run, config, tmp_path, monkeypatch
):
    (tmp_path / "features").symlink_to(run[0] / "features")
    config = changed(config, "eval.methods", ("global",))
    results = [tmp_path / name for name in ("metrics.json", "rankings.npz")]
    evaluate(config, tmp_path)
    (tmp_path / "submission_retrieval_global.csv").touch()
    monkeypatch.setattr(evaluation_of_experiment, "_rank_by_methods", None)
    with pytest.raises(TypeError):
        evaluate(config, tmp_path)  # the same: it will be as it was
    assert all(path.exists() for path in results)
    with pytest.raises(UserError, match=r"evaluation'.*config\.eval\.kappas: "):
        evaluate(changed(config, "eval.kappas", (1,)), tmp_path)
    assert all(path.exists() for path in results)
    with pytest.raises(TypeError):
        evaluate(changed(config, "eval.kappas", (1,)), tmp_path, overwrite=True)
    assert not any(path.exists() for path in results)
    assert not list(tmp_path.glob("submission*"))


# What decides no ranking. Of weights, images, ground truth and imported files, digests decide
_UNDECIDED = {
    *(f"model.{name}" for name in ("pretrained", "pretrained_source", "pretrained_mapping")),
    *("model.checkpoint", "data.root", "data.ground_truth", "data.distractors"),
    *("extract.imported_local", "extract.imported_global"),
    # Of training alone, which changes weights
    "data.exclude",
    *("data.split_seed", "data.validation_share", "data.image_size", "data.crop_area"),
    *("data.crop_aspect", "data.flip", "data.reduced_decode"),
    *(path for path in configuration.flatten(default.get_config()) if path.startswith("train.")),
    # Place, speed, memory, and what is tolerated
    *("data.tfds_dir", "data.beam_options", "data.workers", "data.memory_megabytes"),
    *("data.max_skipped", "extract.batch_pixels"),
    *("search.global_block", "search.local_block", "search.query_block"),
    *("rerank.sp.pair_block", "rerank.mds.query_block"),
    # Of candidates, and of the idf, which the configuration tried does not have
    *("search.estimated", "search.idf_of", "search.idf_power"),
}


def test_results_are_not_written_beside_the_record_of_another_evaluation(tmp_path):
    def made_of(digest):
        store = types.SimpleNamespace(digest=lambda: digest)
        data = types.SimpleNamespace(ground_truth=[])
        return types.SimpleNamespace(weights="w", database=store, queries=store, data=data)

    bind = evaluation_of_experiment._bind
    require = evaluation_of_experiment._require_bound
    ours = revisited_config(tmp_path)
    theirs = configuration.override(ours, {"seed": 9})
    bind(ours, tmp_path, made_of("features"), False)
    require(ours, tmp_path, made_of("features"))
    bind(theirs, tmp_path, made_of("features"), True)
    with pytest.raises(UserError, match=f"evaluation = '{tmp_path}/evaluation': .*another job"):
        require(ours, tmp_path, made_of("features"))
    bind(theirs, tmp_path, made_of("later features"), False)
    require(theirs, tmp_path, made_of("later features"))
    with pytest.raises(UserError, match="another job"):
        require(theirs, tmp_path, made_of("features"))


def other_value(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple | list):
        return (*value, value[0])
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("engine", ["exact", "cann", "ivf", "asmk"])
def test_every_field_decides_or_is_known_not_to(tmp_path, engine):
    config = default.get_config()
    config.search.engine = engine
    outputs.Output.of(tmp_path, config, decided_by(config)).claim()
    idle = {f"search.{name}." for name in ("cann", "ivf", "asmk") if name != engine}
    undecided, other = set(), config.copy_and_resolve_references()
    for path, value in configuration.flatten(config).items():
        section, _, name = path.rpartition(".")
        tree = other
        for part in filter(None, section.split(".")):
            tree = tree[part]
        before = tree[name]
        tree[name] = other_value(value)
        if outputs.Output.of(tmp_path, other, decided_by(other)).is_there():
            undecided.add(path)
        tree[name] = before
    assert other == config.copy_and_resolve_references()
    assert {path for path in undecided if not path.startswith(tuple(idle))} == _UNDECIDED


def change_order(data):
    """Reverses the list of the images."""
    path = data / "gnd_drawn.json"
    content = json.loads(path.read_text())
    last = len(content["imlist"]) - 1
    content["imlist"].reverse()
    for entry in content["gnd"]:
        for name in ("easy", "hard", "junk"):
            entry[name] = sorted(last - image for image in entry[name])
    path.write_text(json.dumps(content))


def change_pictures(data):
    """Gives the images the pictures of others."""
    pictures = sorted((data / "jpg").glob("place*"))
    contents = [picture.read_bytes() for picture in pictures]
    for picture, content in zip(pictures, [*contents[3:], *contents[:3]], strict=True):
        picture.write_bytes(content)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Folders of photographs with a workdir of their features: as drawn, and as changed."""
    folders = {}
    changes = {"drawn": lambda data: None, "order": change_order, "pictures": change_pictures}
    for name, change in changes.items():
        folders[name] = tmp_path_factory.mktemp(name)
        root = make_revisited(folders[name] / "data", PLACES)
        change(root)
        extract(revisited_config(root), folders[name] / "run")
    return folders


@pytest.fixture(
    scope="module",
    params=[
        ("ivf", "local"),
        ("cann", "local"),
        ("asmk", "local"),
        ("exact", "local+diffusion"),
        ("exact", "local+mds"),
    ],
    ids=":".join,
)
def evaluated(request, tmp_path_factory, extracted):
    """A folder with photographs and a workdir, and the configuration of a method."""
    engine, method = request.param
    folder = tmp_path_factory.mktemp(engine)
    shutil.copytree(extracted["drawn"], folder, dirs_exist_ok=True)
    changes = {"eval.methods": (method,), "search.engine": engine, "search.ivf.count": 8}
    config = revisited_config(folder / "data")
    # Without IDF: all images of the tiny network match, which would weigh nothing
    changes |= {"search.cann.grids": 2, "search.asmk.words": 8, "search.asmk.idf": "none"}
    config = configuration.override(config, changes)
    evaluate(config, folder / "run")
    return folder, config


@pytest.mark.parametrize("change", ["order", "pictures"])
def test_nothing_stale_is_used(evaluated, extracted, tmp_path, change):
    shutil.copytree(evaluated[0] / "run", tmp_path / "run")
    shutil.copytree(extracted[change], tmp_path / "new")
    config = configuration.override(evaluated[1], {"data.root": str(tmp_path / "new" / "data")})
    (method,) = config.eval.methods
    before = dict(np.load(tmp_path / "run" / "rankings.npz"))
    if change == "order":
        result = evaluate(config, tmp_path / "run", overwrite=True)
    else:  # as after an extraction of all
        shutil.rmtree(tmp_path / "run" / "features")
        shutil.copytree(tmp_path / "new" / "run" / "features", tmp_path / "run" / "features")
        result = evaluate(config, tmp_path / "run")
    fresh = evaluate(config, tmp_path / "new" / "run")
    for name in ("methods", "average_precisions"):
        assert result[name] == fresh[name]
    found, expected = (np.load(tmp_path / name / "rankings.npz") for name in ("run", "new/run"))
    np.testing.assert_array_equal(found[method], expected[method])
    assert not np.array_equal(before[method], found[method])
