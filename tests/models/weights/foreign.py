"""Random variables of our network, and the same under the names and axes of a source."""

import numpy as np
from flax import traverse_util

from configs import default
from delg_jax.models import delg, weights
from delg_jax.models.variables import shapes
from delg_jax.models.weights.names import is_norm


def model_of(backbone, convention="torchvision", **changes):
    model = default.get_config().model
    model.update(backbone=backbone, convention=convention, local_dim=4, attention_dim=6)
    model.update({"global_dim": 8, "num_classes": 3, **changes})
    return model


def converted(source, theirs, model, mapping=None):
    """The variables of a network from the arrays of a source, classifiers if it has classes."""
    network, classifiers = delg.build(model), model.num_classes > 0
    return weights.convert(source, theirs, network, mapping, classifiers)


def shapes_of(model):
    """Shapes of our variables by path."""
    tree = traverse_util.flatten_dict(shapes(delg.build(model)))
    return {path: leaf.shape for path, leaf in tree.items()}


def draw(shape, leaf, rng):
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
    return (
        rng.uniform(0.5, 1.5, shape) * (1 if leaf in ("scale", "var", "gamma") else 0.1)
    ).astype("f4")


def foreign(naming, model, rng):
    """Our variables that the source has, by path, and the source's arrays by name."""
    modules = naming.modules(model.backbone)
    ours, theirs = {}, {}
    for path, shape in shapes_of(model).items():
        joined = "/".join(path[1:])
        name = naming.single.get(joined) or _name(naming, modules, joined)
        if name is None:
            continue
        ours[path] = draw(shape, path[-1], rng)
        theirs[name] = _axes(ours[path], joined, naming)
    return ours, theirs


def _name(naming, modules, path):
    module, _, leaf = path.rpartition("/")
    if module not in modules:
        return None
    table = naming.norm if is_norm(module) else naming.convolution
    return modules[module] + naming.separator + table[leaf]


def _axes(value, path, naming):
    if naming.bgr and path == "resnet/stem_conv/kernel":
        value = value[:, :, ::-1]
    if naming.output_first and value.ndim == 4:
        return np.moveaxis(value, (3, 2), (0, 1))
    return value.T if naming.output_first and value.ndim == 2 else value
