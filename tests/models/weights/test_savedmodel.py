"""A released-like SavedModel, made with TensorFlow, becomes a checkpoint; skipped without it."""

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models import weights
from tests.models.weights.foreign import converted
from tests.models.weights.test_sources import HEADS, assert_equal, released, savedmodel

pytestmark = [
    pytest.mark.slow,  # imports TensorFlow
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of TensorFlow's own imports
]


@pytest.fixture
def tensorflow():
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


def save(tensorflow, arrays, folder):
    """A TF2 SavedModel of one serving function over all variables, under their own names."""
    module = tensorflow.Module()
    module.held = [tensorflow.Variable(array, name=name) for name, array in arrays.items()]

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, None, 3], "uint8")])
    def serve(image):
        total = tensorflow.reduce_sum(tensorflow.cast(image, "float32"))
        return total + tensorflow.add_n([tensorflow.reduce_sum(v) for v in module.held])

    tensorflow.saved_model.save(module, str(folder), signatures=serve)


def save_frozen_graph(tensorflow, arrays, folder):
    """A TF1 SavedModel, whose checkpoint has no object graph."""
    v1 = tensorflow.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for name, array in arrays.items():
            v1.get_variable(name, initializer=np.asarray(array), use_resource=False)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()


@pytest.mark.parametrize("writer", [save, save_frozen_graph])
def test_a_released_model_is_converted(rng, tmp_path, tensorflow, writer):
    model = savedmodel()
    ours, theirs = released(model, rng, HEADS)
    writer(tensorflow, theirs, tmp_path / "r50delg")
    arrays = weights.read_arrays(str(tmp_path / "r50delg"))
    assert_equal(converted("delg_savedmodel", arrays, model), ours)


def test_odd_names_are_listed_and_mapped(rng, tmp_path, tensorflow):
    odd = HEADS | {"reduce/encoder/kernel": "delg/proj/weights"}
    model = savedmodel()
    ours, theirs = released(model, rng, odd)
    save(tensorflow, theirs, tmp_path / "r50delg")
    arrays = weights.read_arrays(str(tmp_path / "r50delg"))
    with pytest.raises(UserError, match="missing .*reduce/encoder/kernel.*surplus .*delg/proj"):
        converted("delg_savedmodel", arrays, model)
    mapping = {path: odd[path] for path in ("reduce/encoder/kernel", "reduce/encoder/bias")}
    assert_equal(converted("delg_savedmodel", arrays, model, mapping), ours)
