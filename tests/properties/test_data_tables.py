import pytest
from hypothesis import strategies as st

from delg_jax.data.tfds_builders import records, relabelling, tables
from delg_jax.data.tfds_builders.gldv2_files import (
    RECOGNITION,
    RETRIEVAL,
    clean_images,
    read_recognition,
    read_retrieval,
    train_images,
)
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2_tasks
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import damaged

_RETRIEVAL = b"id,images,Usage\nabc,def ghi,Public\nabd,,Ignored\nabe,fff,Private\n"
_RECOGNITION = b"id,landmarks,Usage\nabc,12 7,Public\nabd,,Private\nabe,,Ignored\n"
_SUBMISSION = b'id,images\nabc,"def ghi"\nabd,\n'
_RECOGNISED = b"id,landmarks\nabc,12 0.5\nabd,\nabe,7 1e-3\n"
_RECORDS = b"name,label,height,width\nabc,-1,20,30\nabd,4,20,1000000\n"
_SPLIT = b"id,landmark_id,label,split\nabc,12,0,train\nabd,12,0,validation\n"
_CLEAN = b"landmark_id,images\n12,abc abd\n"
_SOLUTION = {"Public": {"abc": []}, "Private": {"abd": []}, "Ignored": {"abe": []}}
_TEXT = st.text(alphabet='ab19-, "\n\r\0é_é٣.e', max_size=60)


def _lines(found):
    """Exhausts what is read lazily."""
    return list(found)


def _require_finite(predictions):
    for queries in predictions.values():
        for said in queries.values():
            assert abs(said["score"]) < float("inf")
            assert said["class"] >= 0


def _require_sizes(found):
    assert found.sizes.shape == (len(found.names), 2)
    assert found.labels.shape == (len(found.names),)
    assert (found.sizes >= 0).all()
    assert (found.labels >= -1).all()


_READERS = {
    "rows": lambda path: _lines(tables.read(path, ("id",), key="id")),
    "retrieval": lambda path: gldv2_tasks.read_solution(path, "retrieval"),
    "recognition": lambda path: gldv2_tasks.read_solution(path, "recognition"),
    "submission": lambda path: gldv2_tasks.read_predictions(path, "retrieval", _SOLUTION),
    "recognised": lambda path: gldv2_tasks.read_predictions(path, "recognition", _SOLUTION),
    "records": lambda path: records.read(path.parent, path.stem),
    "split": relabelling.read,
    "train": lambda path: _lines(train_images({"train.csv": path})),
    "clean": lambda path: _lines(clean_images({"train.csv": path, "train_clean.csv": path})),
    "answers": lambda path: _answers(path),
}
_REQUIRE = {"recognised": _require_finite, "records": _require_sizes}


def _answers(path):
    folder = path.parent
    for name in (RETRIEVAL, RECOGNITION):
        (folder / name).write_bytes(path.read_bytes())
    return [
        read_retrieval(folder, "Public"),
        read_recognition(folder, "Public"),
    ]


@pytest.fixture(scope="module")
def wholes():
    answers = _RECOGNITION.replace(b"Usage", b"usage"), _RETRIEVAL.replace(b"Usage", b"usage")
    files = (_RETRIEVAL, _RECOGNITION, _SUBMISSION, _RECOGNISED, _RECORDS, _SPLIT, _CLEAN, *answers)
    return (*files, *(b"\xef\xbb\xbf" + file.replace(b"\n", b"\r\n") for file in files))


@cases(700)
def test_any_file_is_read_or_refused(wholes, tmp_path, examples):
    def check(case):
        data, reader = case
        path = tmp_path / "table.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        found = outcome(lambda: _READERS[reader](path))
        if isinstance(found, UserError):
            assert "table.csv" in str(found) or "retrieval.csv" in str(found) or reader == "answers"
        elif reader in _REQUIRE:
            _REQUIRE[reader](found)

    headed = st.builds(lambda whole, text: whole.split(b"\n")[0] + b"\n" + text.encode(),
                       st.sampled_from(wholes), _TEXT)  # fmt: skip
    data = st.one_of(damaged(wholes), headed, _TEXT)
    hold(examples, check, st.tuples(data, st.sampled_from(sorted(_READERS))))


@cases(100)
def test_a_submission_comes_back(tmp_path, examples):
    score = st.floats(allow_nan=False, allow_infinity=False)
    said = st.fixed_dictionaries({"class": st.integers(0, 2**40), "score": score})

    def check(predictions):
        path = tmp_path / "submission.csv"
        queries = ["aaa", "bbb", "ccc"]
        gldv2_tasks.write_predictions(path, "recognition", queries, predictions)
        solution = {"Public": {query: [] for query in queries}, "Private": {}, "Ignored": {}}
        found = gldv2_tasks.read_predictions(path, "recognition", solution)
        assert found["Public"] == predictions

    hold(examples, check, st.dictionaries(st.sampled_from(["aaa", "bbb", "ccc"]), said))
