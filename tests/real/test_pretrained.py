"""Published ImageNet weights in our networks, and what they make of real photographs."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from configs import default
from delg_jax.models import delg, weights

pytestmark = pytest.mark.real


def model_of(backbone):
    model = default.get_config().model
    model.update(backbone=backbone, convention="torchvision", conv4_stride=16)
    model.update(whitening=False, local_head=False)
    return model


def file_of(shared, backbone):
    path = shared / "weights" / f"{backbone}_imagenet.npz"
    if not path.is_file():
        pytest.skip(f"there is no {path.name}")
    return str(path)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_every_array_of_the_file_finds_its_place(shared, backbone):
    model = model_of(backbone)
    arrays = weights.read_arrays(file_of(shared, backbone))
    converted = weights.convert("torchvision", arrays, model)
    found = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(converted).items()}
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    expected = jax.eval_shape(lambda x: delg.build(model).init(jax.random.key(0), x), image)
    assert found == {
        path: leaf.shape for path, leaf in traverse_util.flatten_dict(expected).items()
    }
    assert sum(array.size for array in arrays.values()) == sum(
        np.prod(shape) for path, shape in found.items() if path[0] == "params"
    )


def test_photographs_of_one_landmark_are_alike(shared):
    """Of 10 landmarks with 2 photographs each, most have the other of their own as the nearest."""
    folders = sorted((shared / "data" / "landmarks_35" / "validation").iterdir())
    pairs = [sorted(folder.iterdir())[:2] for folder in folders]
    paths = [path for pair in [pair for pair in pairs if len(pair) == 2][:10] for path in pair]
    images = np.stack([Image.open(path).convert("RGB").resize((224, 224)) for path in paths])
    model = model_of("resnet18")
    arrays = weights.read_arrays(file_of(shared, "resnet18"))
    variables = weights.convert("torchvision", arrays, model)
    descriptors = jax.jit(delg.build(model).apply)(variables, images).global_descriptor
    similarity = np.array(descriptors @ descriptors.T)
    np.fill_diagonal(similarity, -1.0)
    correct = np.mean(similarity.argmax(axis=1) // 2 == np.arange(20) // 2)
    assert correct > 0.5
