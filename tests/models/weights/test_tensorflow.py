import shutil
import warnings

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tf = pytest.importorskip("tensorflow", reason="writes and reads the files")

NAMED = {
    "resnet_v1_50/conv1/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "resnet_v1_50/conv1/BatchNorm/gamma": np.array([1.5, -2.0], np.float32),
    "global_step": np.asarray(7, np.int64),
}


def equal(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def refused(path, rule):
    with pytest.raises(UserError, match=rule) as error:
        read_arrays(str(path))
    assert error.value.subject == "config.model.pretrained"
    assert "\n" not in str(error.value)


def save_named(prefix, arrays=NAMED):
    """As TF1 does: names of variables are all that there is."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )


class Network(tf.Module):
    """Named variables, two of the same name, and ones that are no weights."""

    def __init__(self):
        super().__init__()
        self.conv = tf.Variable(NAMED["resnet_v1_50/conv1/weights"], name="conv1/kernel")
        self.half = tf.Variable(tf.constant([1.5, -2.0], tf.bfloat16), name="conv1/bias")
        self.first = tf.Variable([1.0], name="same")
        self.second = tf.Variable([2.0], name="same")
        self.label = tf.Variable("text", name="label")


OBJECTS = {
    "conv1/kernel": NAMED["resnet_v1_50/conv1/weights"],
    "conv1/bias": np.array([1.5, -2.0], np.float32),
}


@pytest.mark.parametrize("end", ["", ".index"])
def test_checkpoints_by_name_keep_their_names(tmp_path, end):
    save_named(tmp_path / "model.ckpt-1000", {**NAMED, "notes": np.array("text")})
    equal(read_arrays(str(tmp_path / f"model.ckpt-1000{end}")), NAMED)


def test_checkpoints_of_a_single_file_are_read(tmp_path):
    """The first format, in which slim's networks are published."""
    path = str(tmp_path / "resnet_v1_50.ckpt")
    tf.raw_ops.Save(filename=path, tensor_names=list(NAMED), data=list(NAMED.values()))
    equal(read_arrays(path), NAMED)


def test_a_tf1_saver_and_its_folder_are_read(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(n, initializer=a) for n, a in NAMED.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables)
        for step in (1, 2):
            saver.save(session, str(tmp_path / "model.ckpt"), global_step=step)
    for path in (tmp_path, tmp_path / "model.ckpt-1"):
        equal(read_arrays(str(path)), NAMED)


def test_checkpoints_by_object_give_the_names_of_variables(tmp_path):
    prefix = tf.train.Checkpoint(model=Network()).save(str(tmp_path / "model"))
    expected = {**OBJECTS, "model/first": np.float32([1]), "model/second": np.float32([2])}
    for path in (prefix, tmp_path):
        equal(read_arrays(str(path)), expected)


def test_a_saved_model_is_read(tmp_path):
    tf.saved_model.save(Network(), str(tmp_path))
    expected = {**OBJECTS, "first": np.float32([1]), "second": np.float32([2])}
    for path in (tmp_path, tmp_path / "variables" / "variables"):
        equal(read_arrays(str(path)), expected)


@pytest.fixture(scope="module")
def keras_model():
    """A compiled model that was trained for one step, so that its optimiser has state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = tf.keras
        image = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(2, 1, name="conv1")(image)
        x = keras.layers.BatchNormalization(name="bn_conv1")(x)
        model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        rng = np.random.default_rng(0)
        model.train_on_batch(rng.random((2, 4, 4, 3)), rng.random((2, 2)))
    names = ("conv1/kernel", "conv1/bias", "bn_conv1/gamma", "bn_conv1/beta")
    names += ("bn_conv1/moving_mean", "bn_conv1/moving_variance")
    return model, dict(zip(names, model.get_weights(), strict=True))


def save_checkpoint(model, folder):
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(folder / "model"))


WAYS = {
    "checkpoint": save_checkpoint,
    "saved_model": lambda model, folder: tf.saved_model.save(model, str(folder)),
    "export": lambda model, folder: model.export(str(folder), verbose=False),
    "legacy.h5": lambda model, folder: model.save(folder / "legacy.h5"),
    "model.weights.h5": lambda model, folder: model.save_weights(folder / "model.weights.h5"),
    "model.keras": lambda model, folder: model.save(folder / "model.keras"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_trained_keras_model_is_read_without_its_optimiser(tmp_path, keras_model, way):
    model, expected = keras_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WAYS[way](model, tmp_path)
    equal(read_arrays(str(tmp_path / way if "." in way else tmp_path)), expected)


def test_slot_variables_are_left_out(tmp_path):
    """An optimiser of TF1 or Keras 2 keeps its state in slots of the variables."""
    network = Network()
    optimiser = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)
    optimiser.apply_gradients([(tf.ones_like(network.conv), network.conv)])
    prefix = tf.train.Checkpoint(model=network, optimizer=optimiser).save(str(tmp_path / "model"))
    assert any(".OPTIMIZER_SLOT" in name for name, _ in tf.train.list_variables(prefix))
    found = read_arrays(prefix)
    assert set(found) == {*OBJECTS, "model/first", "model/second"}


def test_metrics_that_keras2_saves_beside_a_model_are_left_out(tmp_path):
    network = Network()
    network.keras_api = tf.Module()
    network.keras_api.total = tf.Variable(3.0, name="total")
    tf.saved_model.save(network, str(tmp_path))
    assert set(read_arrays(str(tmp_path))) == {*OBJECTS, "first", "second"}


def test_a_folder_that_was_moved_is_read(tmp_path):
    save_named(tmp_path / "there" / "model-1")
    text = f'model_checkpoint_path: "{tmp_path / "there" / "model-1"}"\n'
    (tmp_path / "there" / "checkpoint").write_text(text)
    shutil.move(tmp_path / "there", tmp_path / "here")
    equal(read_arrays(str(tmp_path / "here")), NAMED)


def test_a_folder_that_names_an_absent_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-1"\n')
    refused(tmp_path, r"model-1\.index")


@pytest.mark.parametrize("content", ["", "no such syntax", "\x00\x01"])
def test_an_unreadable_list_of_checkpoints_is_refused(tmp_path, content):
    (tmp_path / "checkpoint").write_text(content)
    refused(tmp_path, "`checkpoint`|intact TensorFlow checkpoint")


def test_absent_data_is_refused(tmp_path):
    save_named(tmp_path / "model")
    (tmp_path / "model.data-00000-of-00001").unlink()
    refused(tmp_path / "model", "intact TensorFlow checkpoint .*data-00000-of-00001")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_data_are_refused(tmp_path, share):
    save_named(tmp_path / "model", {"a": np.ones(1000, np.float32)})
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: int(share * data.stat().st_size)])
    refused(tmp_path / "model", "intact TensorFlow checkpoint")


def test_changed_data_are_refused(tmp_path):
    save_named(tmp_path / "model", {"a": np.ones(1000, np.float32)})
    data = tmp_path / "model.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[100] ^= 255
    data.write_bytes(content)
    refused(tmp_path / "model", "intact TensorFlow checkpoint")


def test_text_alone_is_refused(tmp_path):
    save_named(tmp_path / "model", {"notes": np.array("text")})
    refused(tmp_path / "model", "hold weights")
