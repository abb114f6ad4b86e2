import json
from types import SimpleNamespace

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import picture_shapes


class FakeSearcher:
    """Notes what is asked for; the first picture after the warm-up compiles one program more.

    Its clock advances only while it searches, judges and matches.
    """

    best_method = "local+mds"
    source = range(7)

    def __init__(self, config, root):
        self.compiled_shapes, self.asked, self.seconds = {}, [], 0.0

    def warm_up(self):
        self.compiled_shapes = {"a": 1, "b": 1}

    def query(self, picture, box):
        self.compiled_shapes["c"] = 1
        self.asked.append((picture.shape, box))
        return picture

    def search(self, query, method):
        assert method == self.best_method
        self.seconds += 4.0
        return SimpleNamespace(hits=[3])

    def judge(self, query, hits):
        assert hits == [3]
        self.seconds += 2.0

    def matches(self, query, image):
        assert image == 0
        self.seconds += 1.0


def test_every_kind_is_timed_with_the_method_of_the_page(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(picture_shapes, "_LARGE", (300, 400))
    monkeypatch.setattr(picture_shapes, "_SIDES", (10, 30))
    monkeypatch.setattr(picture_shapes.stored_config, "read", lambda root: {})
    monkeypatch.setattr(
        picture_shapes, "Searcher", lambda *given: made.append(FakeSearcher(*given)) or made[0]
    )
    clock = SimpleNamespace(perf_counter=lambda: made[0].seconds)
    monkeypatch.setattr(picture_shapes, "time", clock)
    flags = ["--index=w", "--pictures=4", "--boxes=5", f"--results={tmp_path}"]
    assert run_experiment(picture_shapes, flags) == 0
    found = json.loads((tmp_path / "picture_shapes.json").read_text())
    for kind, times in {"12 megapixels": 1, "picture": 4, "box": 5}.items():
        # The verdict is a part of the search
        assert found["seconds"][kind] == {"search": [6.0] * times, "matches": [1.0] * times}
    assert (found["compiled"], found["compiled_later"]) == (2, 1)
    assert (found["images"], found["method"]) == (7, "local+mds")
    assert (tmp_path / "picture_shapes.md").read_text() == capsys.readouterr().out
    (asked,) = (searcher.asked for searcher in made)
    assert len({shape for shape, box in asked if box is None}) == 5
    for shape, box in asked[5:]:
        assert shape == (300, 400, 3)
        assert 0 <= box[0] < box[2] <= 400
        assert 0 <= box[1] < box[3] <= 300
