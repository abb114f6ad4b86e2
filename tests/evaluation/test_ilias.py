"""`ilias_golden.json` holds random cases, and what ILIAS's public evaluation code gave for them."""

import json
import pathlib

import numpy as np
import pytest

from configs import default
from delg_jax.cli.main import main
from delg_jax.data.ilias import read_ids
from delg_jax.errors import UserError
from delg_jax.evaluation import evaluate as evaluate_experiment
from delg_jax.evaluation import ilias

GOLDEN = json.loads((pathlib.Path(__file__).parent / "ilias_golden.json").read_text())
CASES = GOLDEN["cases"]


def write_lists(root, queries, positives):
    (root / "image_ids").mkdir(parents=True)
    lines = "".join(f"{name},0\n" for name in queries)
    (root / "image_ids" / "image_query_ids.txt").write_text(lines)
    lines = "".join(f"{name},{scale},{clutter}\n" for name, scale, clutter in positives)
    (root / "image_ids" / "positive_ids.txt").write_text(lines)
    return read_ids(root)


@pytest.fixture
def ids(tmp_path):
    return write_lists(tmp_path / "ilias", GOLDEN["queries"], GOLDEN["positives"])


def by_bounds(bounds, values):
    """Percents by the names that the public code gives its groups."""
    ends = [*bounds[1:], float("inf")]
    return {
        f"{first:g}-{last:g}": 100 * value
        for first, last, value in zip(bounds, ends, values, strict=True)
        if not np.isnan(value)
    }


def rounded(golden):
    return {
        "-".join(f"{float(bound):g}" for bound in name.split("-")): value
        for name, value in golden.items()
    }


@pytest.mark.parametrize("case", CASES, ids=[f"{len(c['images'][0])}_{c['k']}" for c in CASES])
def test_metrics_are_those_of_the_public_code(ids, case):
    lists = np.array(case["similarities"]), np.array(case["images"])
    found = ilias.score(ids, GOLDEN["queries"], *lists, case["k"])
    assert 100 * found.map == pytest.approx(case["map"], rel=1e-12)
    np.testing.assert_allclose(100 * found.average_precisions, case["aps"], rtol=1e-12, atol=1e-12)
    assert by_bounds(ilias.SCALES, found.scale) == pytest.approx(rounded(case["scale"]), rel=1e-12)
    clutter = by_bounds(ilias.CLUTTER, found.clutter)
    assert clutter == pytest.approx(rounded(case["clutter"]), rel=1e-12)
    if len(case["images"][0]) >= case["k"]:  # the public code divides by k also in shorter lists
        assert 100 * found.oracle == pytest.approx(case["oracle"], rel=1e-12)


def test_by_hand(ids):
    """Object 1 has two positives, images 1 and 2; they come first and fourth: (1 + 2 / 4) / 2."""
    images = np.array([[1, 50, 0, 2, 60]])
    similarities = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    query = ["object_001/query/Q001_00.jpg"]
    assert ilias.score(ids, query, similarities, images, 5).map == 0.75
    assert ilias.score(ids, query, similarities, images, 3).map == 0.5
    assert ilias.score(ids, query, similarities, images, 1).map == 1.0
    assert ilias.score(ids, query, similarities, images, 3).oracle == 0.5
    similarities[0, 3] = -np.inf  # as where there are fewer images than places
    assert ilias.score(ids, query, similarities, images, 5).map == 0.5


DIMENSION, DISTRACTORS = 8, (7, 30, 11)


def unit(rng, count):
    vectors = rng.normal(size=(count, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def write_features(path, names, vectors):
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("index", data=names, dtype=h5py.string_dtype("ascii"))
        file.create_dataset("features", data=vectors, compression="gzip")


@pytest.fixture
def files(tmp_path, ids):
    """Queries and positives in other orders than the lists, and three parts of distractors."""
    rng = np.random.default_rng(5)
    vectors = {
        name: unit(rng, len(names)) for name, names in (("q", ids.queries), ("p", ids.positives))
    }
    write_features(tmp_path / "q.hdf5", ids.queries[::-1], vectors["q"][::-1])
    names = [f"ilias_core/{name}" for name in ids.positives[::-1]]  # as our export names them
    write_features(tmp_path / "p.hdf5", names, vectors["p"][::-1])
    parts = []
    for number, count in enumerate(DISTRACTORS):
        parts.append(unit(rng, count).astype(np.float16))
        names = [f"yfcc100m_{number}.tar/{number}{image:03d}" for image in range(count)]
        write_features(tmp_path / "parts" / f"f_{number:05d}.hdf5", names, parts[-1])
    return tmp_path, vectors, parts


def evaluate(root, output="out", **options):
    arguments = (root / "ilias", root / "q.hdf5", root / "p.hdf5", root / "parts", root / output)
    return ilias.evaluate_files(*arguments, **{"k": 20, **options})


def expected(ids, vectors, parts, k=20):
    database = np.concatenate([vectors["p"], *(part.astype(np.float32) for part in parts)])
    similarities = vectors["q"] @ database.T
    images = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return ilias.score(ids, ids.queries, np.take_along_axis(similarities, images, 1), images, k)


@pytest.mark.parametrize("rows", [4, 65_536])
def test_parts_give_the_metrics_of_one_database(files, ids, monkeypatch, rows):
    root, vectors, parts = files
    monkeypatch.setattr(ilias, "_ROWS", rows)
    found, wanted = evaluate(root), expected(ids, vectors, parts)
    assert found["map@20"] == pytest.approx(100 * wanted.map, rel=1e-6)
    assert found["oracle"] == pytest.approx(100 * wanted.oracle, rel=1e-6)
    assert list(found["average_precisions"]) == ids.queries
    np.testing.assert_allclose(
        list(found["average_precisions"].values()), 100 * wanted.average_precisions, rtol=1e-6
    )
    numbers = [found[name] for name in ("queries", "positives", "distractors")]
    assert numbers == [len(ids.queries), len(ids.positives), sum(DISTRACTORS)]
    assert json.loads((root / "out" / "ilias.json").read_text())["map@20"] == found["map@20"]


def test_selected_distractors_alone_count(files, ids):
    root, vectors, parts = files
    (root / "mini.txt").write_text("0001\n2003\n2004\n")
    found = evaluate(root, selected=root / "mini.txt")
    wanted = expected(ids, vectors, [parts[0][1:2], parts[2][3:5]])
    assert found["map@20"] == pytest.approx(100 * wanted.map, rel=1e-6)
    assert found["distractors"] == 3


def test_a_stopped_run_resumes_after_the_last_part(files, ids, monkeypatch):
    root, _, _ = files
    whole, read = evaluate(root, "whole"), []

    def add(search, path, *rest):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(path.name)
        return plain(search, path, *rest)

    plain = ilias._add
    monkeypatch.setattr(ilias, "_add", add)
    with pytest.raises(KeyboardInterrupt):
        evaluate(root)
    assert not (root / "out" / "ilias.json").exists()
    monkeypatch.setattr(
        ilias, "_add", lambda s, p, *rest: (read.append(p.name), plain(s, p, *rest))[1]
    )
    assert evaluate(root) == whole
    assert read == ["f_00000.hdf5", "f_00001.hdf5", "f_00002.hdf5"]
    evaluate(root)
    assert len(read) == 3  # all parts are in the lists
    write_features(root / "parts" / "f_00000.hdf5", ["x.tar/1"], np.ones((1, DIMENSION)))
    assert evaluate(root)["distractors"] == 1 + sum(DISTRACTORS[1:])
    assert len(read) == 6


def _missing(root, ids):
    write_features(root / "q.hdf5", ids.queries[1:], np.ones((len(ids.queries) - 1, DIMENSION)))


def _other(root, ids):
    names = [*ids.positives, "x/pos/y.jpg"]
    write_features(root / "p.hdf5", names, np.ones((len(names), DIMENSION)))


def _narrow(root, ids):
    write_features(root / "parts" / "f_00001.hdf5", ["t/1"], np.ones((1, 4)))


def _positive(root, ids):
    write_features(root / "parts" / "f_00001.hdf5", ids.positives[:1], np.ones((1, DIMENSION)))


def _not_finite(root, ids):
    write_features(root / "parts" / "f_00001.hdf5", ["t/1"], np.full((1, DIMENSION), np.nan))


def _fewer_names(root, ids):
    write_features(root / "parts" / "f_00001.hdf5", ["t/1"], np.ones((2, DIMENSION)))


def _no_parts(root, ids):
    for path in (root / "parts").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "damage", [_missing, _other, _narrow, _positive, _not_finite, _fewer_names, _no_parts]
)
def test_other_files_are_refused(files, ids, damage):
    root, _, _ = files
    damage(root, ids)
    with pytest.raises(UserError) as caught:
        evaluate(root)
    assert "\n" not in str(caught.value)
    assert not (root / "out" / "ilias.json").exists()


def test_the_verb_prints_the_metrics(files, capsys):
    root, _, _ = files
    flags = [f"--{name}={root / path}" for name, path in (
        ("queries", "q.hdf5"), ("positives", "p.hdf5"), ("distractors", "parts"), ("output", "out")
    )]  # fmt: skip
    assert main(["ilias", str(root / "ilias"), *flags, "--k=20"]) == 0
    wanted = json.loads((root / "out" / "ilias.json").read_text())["map@20"]
    assert f"mAP@20 {wanted:.2f} %" in capsys.readouterr().out
    assert main(["ilias", str(root / "ilias"), *flags[1:]]) == 2
    assert main(["ilias", *flags]) == 2


def test_the_protocols_of_revisited_do_not_score_it(tmp_path):
    config = default.get_config()
    config.data.update(name="ilias", root=str(tmp_path))
    with pytest.raises(UserError, match="delg ilias"):
        evaluate_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
