import numpy as np
import pytest
from PIL import Image

from configs import default
from delg_jax import data
from delg_jax.data import ilias
from delg_jax.errors import UserError


def make(root):
    """Two objects with three queries and three positives, as ILIAS lies in its folders."""
    queries = ["red_cup_000/query/Q000_00.jpg", "red_cup_000/query/Q000_01.jpg"]
    queries += ["blue_dog_001/query/Q001_00.jpg"]
    positives = ["blue_dog_001/pos/P001_00.jpg", "red_cup_000/pos/P000_00.jpg"]
    positives += ["red_cup_000/pos/P000_01.jpg"]
    (root / "image_ids").mkdir(parents=True)
    (root / "image_ids" / "image_query_ids.txt").write_text("".join(f"{q},x\n" for q in queries))
    lines = (f"{name},0.{number},{20 * number}\n" for number, name in enumerate(positives))
    (root / "image_ids" / "positive_ids.txt").write_text("".join(lines))
    for number, name in enumerate([*queries, *positives]):
        path = root / "ilias_core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 30), (9 * number, 0, 0)).save(path)
    return queries, positives


def test_queries_find_the_positives_of_their_object(tmp_path):
    queries, positives = make(tmp_path)
    settings = default.get_config().data
    settings.update(name="ilias", root=str(tmp_path))
    found = data.open_retrieval(settings)
    assert found.queries.names == queries
    assert found.database.names == positives
    assert [entry["easy"] for entry in found.ground_truth] == [[1, 2], [1, 2], [0]]
    assert found.ground_truth[1]["bbx"] == [0, 0, 41, 30]
    assert found.database.read(2)[:2] == b"\xff\xd8"


def test_lists_hold_scale_and_clutter(tmp_path):
    make(tmp_path)
    ids = ilias.read_ids(tmp_path)
    np.testing.assert_allclose(ids.scales, [0.0, 0.1, 0.2])
    assert ids.clutter.tolist() == [0, 20, 40]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("image_query_ids.txt", ""),
        ("image_query_ids.txt", "red_cup_000/query/Q.jpg,x\n" * 2),
        ("image_query_ids.txt", "green_hat_002/query/Q.jpg,x\n"),
        ("positive_ids.txt", "red_cup_000/pos/P.jpg\n"),
        ("positive_ids.txt", "red_cup_000/pos/P.jpg,large,2\n"),
        ("positive_ids.txt", None),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, file, text):
    make(tmp_path)
    path = tmp_path / "image_ids" / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(UserError, match="list of ILIAS") as caught:
        ilias.read_ids(tmp_path)
    assert "\n" not in str(caught.value)
