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


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_every_array_of_the_file_finds_its_place(shared, backbone):
    model = model_of(backbone)
    arrays = weights.read_arrays(file_of(shared, backbone))
    converted = weights.convert("torchvision", arrays, delg.build(model), classifiers=False)
    found = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(converted).items()}
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    expected = jax.eval_shape(lambda x: delg.build(model).init(jax.random.key(0), x), image)
    assert found == {
        path: leaf.shape for path, leaf in traverse_util.flatten_dict(expected).items()
    }
    assert sum(array.size for array in arrays.values()) == sum(
        np.prod(shape) for path, shape in found.items() if path[0] == "params"
    )


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_folded_and_unfolded_batch_norm_agree(shared, backbone):
    """The file is folded: with a mean and a variance divided out of it, it is not."""
    rng = np.random.default_rng(0)
    folded = weights.read_arrays(file_of(shared, backbone))
    unfolded = dict(folded)
    norms = [n.removesuffix(".bias") for n in folded if n.endswith(".bias")]
    for norm in norms:
        scale, bias = (folded[f"{norm}.{leaf}"].astype(np.float64) for leaf in ("weight", "bias"))
        mean = rng.normal(0.0, 0.1, scale.shape)
        deviation = rng.uniform(0.5, 2.0, scale.shape)
        unfolded[f"{norm}.weight"] = scale * deviation
        unfolded[f"{norm}.bias"] = bias + scale * mean
        unfolded[f"{norm}.running_mean"] = mean
        unfolded[f"{norm}.running_var"] = deviation**2 - 1e-5
    model = model_of(backbone)
    path = sorted((shared / "data" / "roxford5k_1614").rglob("*.jpg"))[0]
    image = np.asarray(Image.open(path).convert("RGB"))[None]
    module = delg.build(model)
    apply = jax.jit(module.apply)
    both = (
        weights.convert("torchvision", arrays, module, classifiers=False)
        for arrays in (folded, unfolded)
    )
    one, other = (apply(variables, image).global_descriptor for variables in both)
    assert np.linalg.norm(one - other) < 1e-5


def test_photographs_of_one_landmark_are_alike(shared):
    """Of 10 landmarks with 2 photographs each, most have the other of their own as the nearest."""
    folders = sorted((shared / "data" / "landmarks_35" / "validation").iterdir())
    pairs = [sorted(folder.iterdir())[:2] for folder in folders]
    paths = [path for pair in [pair for pair in pairs if len(pair) == 2][:10] for path in pair]
    images = np.stack([Image.open(path).convert("RGB").resize((224, 224)) for path in paths])
    model = model_of("resnet18")
    arrays = weights.read_arrays(file_of(shared, "resnet18"))
    variables = weights.convert("torchvision", arrays, delg.build(model), classifiers=False)
    descriptors = jax.jit(delg.build(model).apply)(variables, images).global_descriptor
    similarity = np.array(descriptors @ descriptors.T)
    np.fill_diagonal(similarity, -1.0)
    correct = np.mean(similarity.argmax(axis=1) // 2 == np.arange(20) // 2)
    assert correct > 0.5
