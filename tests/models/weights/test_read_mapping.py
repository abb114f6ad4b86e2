import json

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models import weights
from delg_jax.models.weights.names import NAMINGS
from tests.models.weights.foreign import foreign, model_of


def test_names_and_numbers_are_read(tmp_path):
    content = {"whiten/kernel": "fc/weights", "attend/conv1/bias": 0.5}
    (tmp_path / "map.json").write_text(json.dumps(content))
    assert weights.read_mapping(str(tmp_path / "map.json")) == content
    assert weights.read_mapping("") == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": null}', '{"a": true}', '{"a": ["b"]}'])
def test_something_else_is_one_line(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(UserError, match="pretrained_mapping = .*must be a JSON") as error:
        weights.read_mapping(str(tmp_path / "map.json"))
    assert "\n" not in str(error.value)


def test_a_file_of_an_editor_is_read(tmp_path):
    path = tmp_path / "mapping.json"
    path.write_bytes('\ufeff{"a/kernel": "b"}\r\n\r\n'.encode())
    assert weights.read_mapping(str(path)) == {"a/kernel": "b"}


def test_an_absent_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="pretrained_mapping.*No such file"):
        weights.read_mapping(str(tmp_path / "map.json"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"resnet/stem/kernel": "conv1.weight"}, "'resnet/stem/kernel': must name a variable of"),
        ({"resnet/stem_conv/kernel": "conv0.weight"}, "'conv0.weight': must name a variable of"),
    ],
)
def test_both_sides_must_exist(rng, mapping, message):
    model = model_of("tiny")
    _, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    with pytest.raises(UserError, match=message):
        weights.convert("torchvision", theirs, model, mapping)


def test_a_renamed_array_is_found(rng):
    model = model_of("tiny")
    ours, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    theirs["stem"] = theirs.pop("conv1.weight")
    converted = weights.convert("torchvision", theirs, model, {"resnet/stem_conv/kernel": "stem"})
    np.testing.assert_array_equal(
        converted["params"]["resnet"]["stem_conv"]["kernel"],
        ours["params", "resnet", "stem_conv", "kernel"],
    )
