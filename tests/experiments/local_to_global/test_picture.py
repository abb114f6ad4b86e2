from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from delg_jax.cli.main import run_experiment
from delg_jax.data import open_retrieval
from experiments.local_to_global import picture
from tests.experiments.tables.test_quickstart_seeds import CONFIG

TINY = [CONFIG, "--config.data.synthetic.size=tiny"]


def rankings(**lists):
    return {name.replace("_", "+"): np.array(rows) for name, rows in lists.items()}


def test_the_query_with_the_largest_gain_and_a_new_image_is_chosen():
    truth = [{"easy": [0, 1, 2], "hard": [], "junk": []}] * 3
    found = rankings(
        **{"global": [[5, 4, 3, 0, 1, 2], [5, 4, 0, 1, 2, 3], [5, 4, 3, 0, 1, 2]]},
        local=[[0, 1, 5, 2, 4, 3], [0, 5, 1, 2, 4, 3], [0, 5, 1, 2, 4, 3]],
        local_mds=[[0, 1, 5, 2, 4, 3], [0, 1, 5, 2, 4, 3], [0, 2, 1, 5, 4, 3]],
    )
    # The first gains most, but nothing is brought in there
    assert picture.choose(found, truth, 2, {}) == 2
    assert picture.new_images(found, 2, np.array([0, 1, 2]), 2).tolist() == [2]
    assert picture.choose({**found, "local+mds": found["local"]}, truth, 2, {}) is None
    assert picture.choose({**found, "local": found["global"]}, truth, 2, {}) is None
    found["local+mds"][1] = found["local+mds"][2]
    assert picture.choose(found, truth, 2, {}) == 2
    assert picture.choose(found, truth, 2, {1: np.array([2])}) == 1


def test_the_query_with_the_largest_loss_is_chosen():
    truth = [{"easy": [0, 1], "hard": [], "junk": []}] * 3
    best, worse, worst = [0, 1, 2, 3], [2, 0, 1, 3], [2, 3, 0, 1]
    found = rankings(local=[best, worse, best], local_mds=[worse, worst, worst])
    assert picture.choose_loss(found, truth, 2) == 2
    assert picture.choose_loss(found, truth, 4) == 2  # all are among the first: by precision
    assert picture.choose_loss({**found, "local+mds": found["local"]}, truth, 2) is None


def test_indirect_images_are_counted(monkeypatch):
    truth = [{"easy": [0, 1, 2], "hard": [], "junk": [3]}] * 2 + [
        {"easy": [0, 1, 2, 4, 5], "hard": [], "junk": [3]}
    ]
    found = rankings(
        **{"global": [[5, 4, 3, 0, 1, 2]] * 3},
        local=[[0, 5, 1, 2, 4, 3], [0, 5, 4, 3, 1, 2], [0, 5, 4, 3, 1, 2]],
        local_mds=[[0, 1, 2, 5, 4, 3], [5, 1, 0, 4, 3, 2], [5, 1, 0, 4, 3, 2]],
    )
    # Wrong are images 4 and 5; image 3 is neither
    inliers = np.array([[90, 80, 20, 99, 20, 10], [90, 21, 30, 99, 20, 20], [0] * 6])
    extracted = SimpleNamespace(data=SimpleNamespace(ground_truth=truth))
    counter = lambda *_: lambda query, images: inliers[query]  # noqa: E731
    monkeypatch.setattr(picture.methods, "inlier_counter", counter)
    config = quickstart.get_config("smoke")

    def counted():
        number, indirect = picture.count_indirect(extracted, found, config, 3)
        return number, {query: some.tolist() for query, some in indirect.items()}

    # Of the last query nothing is wrong, so nobody knows what chance gives
    assert counted() == (3, {})
    inliers[0, 2], inliers[1, 1] = 19, 20
    assert counted() == (3, {0: [2], 1: [1]})


@pytest.mark.slow
def test_draws_the_tiny_synthetic_data(tmp_path, capsys):
    config = quickstart.get_config("smoke")
    data = open_retrieval(config.data)
    count, lists = len(data.database), {method: [] for method in picture.TITLES}
    for entry in data.ground_truth:
        positives = [*entry["easy"], *entry["hard"]]
        others = [image for image in range(count) if image not in positives]
        lists["global"].append(others + positives)
        lists["local"].append(positives[:1] + others + positives[1:])
        lists["local+mds"].append(positives + others)
    np.savez(tmp_path / "rankings.npz", **{name: np.array(r) for name, r in lists.items()})
    output = tmp_path / "new" / "picture.png"
    arguments = [*TINY, f"--workdir={tmp_path}", "--top=2"]
    assert run_experiment(picture, [*arguments, f"--output={output}"]) == 0
    said = capsys.readouterr().out
    assert "local search: 1 of 2 correct" in said
    assert "match their query no better than wrong images do" in said
    with Image.open(output) as drawing:
        assert drawing.format == "PNG"


@pytest.mark.parametrize(
    "arguments", [["--output=picture.svg"], ["--config.data.name=revisited"], ["--top=0"], []]
)
def test_invalid_flags_are_one_line_errors(capsys, tmp_path, arguments):
    assert run_experiment(picture, [*TINY, f"--workdir={tmp_path}", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
