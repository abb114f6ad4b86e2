import json

import pytest

from delg_jax.data import open_retrieval, open_training
from delg_jax.data.revisited import retrieval
from delg_jax.errors import UserError
from tests.photographs import make_revisited
from tests.tiny import retrieval_config


@pytest.fixture
def root(tmp_path):
    return make_revisited(tmp_path / "photographs", places=3)


@pytest.fixture
def data(root):
    return retrieval_config(root).data.copy_and_resolve_references().unlock()


def test_database_and_queries_are_those_of_the_ground_truth(root, data):
    found = retrieval(data)
    content = json.loads((root / "gnd_drawn.json").read_text())
    assert found.database.names == content["imlist"]
    assert found.queries.names == content["qimlist"]
    assert found.ground_truth == content["gnd"]
    assert found.database.read(1) == (root / "jpg" / "place0_far.jpg").read_bytes()
    assert found.queries.labels.tolist() == [-1] * 3


@pytest.mark.parametrize(
    ("deleted", "names"),
    [
        ("jpg/place1_near.jpg", "names 1 images .*: place1_near$"),
        ("jpg/query2.jpg", "names 1 images .*: query2$"),
        ("jpg/place*", r"names 6 images .*: (\w+, ){4}\w+ \.\.\.$"),
        ("gnd_drawn.json", r"config\.data\.root = .*gnd_.*\(found none\)"),
    ],
)
def test_absent_files_are_named(root, data, deleted, names):
    for path in root.glob(deleted):
        path.unlink()
    with pytest.raises(UserError, match=names):
        retrieval(data)


def test_of_two_ground_truths_one_must_be_chosen(root, data):
    (root / "gnd_other.json").write_text((root / "gnd_drawn.json").read_text())
    with pytest.raises(UserError, match=r"found gnd_drawn\.json, gnd_other\.json"):
        retrieval(data)
    data.ground_truth = "gnd_other.json"
    assert len(retrieval(data).queries) == 3


@pytest.mark.parametrize(
    ("field", "value", "subject"),
    [
        ("ground_truth", "gnd_absent.json", r"ground truth = '.*gnd_absent\.json'"),
        ("root", "/no/such/folder", r"config\.data\.root = '/no/such/folder'"),
    ],
)
def test_a_path_to_nothing_is_refused(data, field, value, subject):
    data[field] = value
    with pytest.raises(UserError, match=subject):
        retrieval(data)


def test_a_data_set_is_opened_by_its_name(data):
    assert len(open_retrieval(data).database) == 6
    data.name = "gldv2_clean"
    with pytest.raises(UserError, match=r"config\.data\.name = 'gldv2_clean'"):
        open_retrieval(data)
    data.name = "revisited"
    with pytest.raises(UserError, match=r"'revisited': has no training images.* synthetic, folder"):
        open_training(data)
    data.name = "oxford"
    with pytest.raises(UserError, match=r"config\.data\.name = 'oxford'"):
        open_training(data)


@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".png"])
def test_names_with_an_ending_are_understood(root, data, ending):
    path = root / "gnd_drawn.json"
    content = json.loads(path.read_text())
    plain = retrieval(data)
    for name in ("imlist", "qimlist"):
        content[name] = [f"{image}{ending}" for image in content[name]]
    path.write_text(json.dumps(content))
    found = retrieval(data)
    assert found.database.names == plain.database.names
    assert found.queries.names == plain.queries.names
    assert found.database.read(1) == plain.database.read(1)


@pytest.mark.parametrize("named", ["place0_near", "place0_near.JPG", "place0_near.jpg"])
def test_files_of_another_ending_are_found(root, data, named):
    path = root / "gnd_drawn.json"
    path.write_text(path.read_text().replace('"place0_near"', f'"{named}"'))
    picture = (root / "jpg" / "place0_near.jpg").rename(root / "jpg" / "place0_near.JPG")
    found = retrieval(data)
    assert found.database.names[:2] == ["place0_near.JPG", "place0_far.jpg"]
    assert found.database.read(0) == picture.read_bytes()
    assert found.queries.names[0] == "query0"


def test_a_name_with_dots_is_no_ending(root, data):
    path = root / "gnd_drawn.json"
    path.write_text(path.read_text().replace('"place0_near"', '"place0.v2"'))
    (root / "jpg" / "place0_near.jpg").rename(root / "jpg" / "place0.v2.jpg")
    assert retrieval(data).database.names[0] == "place0.v2"
