import ml_collections
import pytest

from delg_jax.data.synthetic import retrieval, training
from delg_jax.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    return ml_collections.ConfigDict({"tfds_dir": folder, "synthetic": {"size": "tiny", "seed": 0}})


def test_training_classes_are_the_landmarks(data):
    opened = training(data)
    assert set(opened.train.labels) == set(opened.validation.labels) == {0, 1, 2, 3}
    assert opened.classes[2] == "landmark0002"
    assert all(
        name.startswith(opened.classes[label])
        for name, label in zip(opened.train.names, opened.train.labels, strict=True)
    )


def test_retrieval_has_truth_for_each_query(data):
    opened = retrieval(data)
    assert (len(opened.database), len(opened.queries)) == (28, 3)
    assert len(opened.ground_truth) == 3
    positions = opened.ground_truth[0]["easy"] + opened.ground_truth[0]["hard"]
    assert {opened.database.labels[p] for p in positions} == {opened.queries.labels[0]}


def test_unknown_size_is_a_user_error(data):
    wrong = ml_collections.ConfigDict(data.to_dict())
    wrong.synthetic.size = "huge"
    with pytest.raises(UserError, match="huge"):
        training(wrong)
