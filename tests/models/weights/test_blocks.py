"""Files of Vision Transformers that hold several layers in one array, or several networks."""

import numpy as np
import pytest
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models import vit, weights
from delg_jax.models.vit import Architecture
from delg_jax.models.weights import blocks
from delg_jax.models.weights.names import NAMINGS
from delg_jax.training.named_weights import find_weights
from tests.models.weights.foreign import foreign, model_of

BARE = {"local_head": False, "whitening": False, "num_classes": 0}


def small(monkeypatch, convention, name):
    """Sizes of a published architecture, of few channels under its name."""
    spec = Architecture(convention, 16, 3, 8, 12, 2, 16)
    monkeypatch.setitem(vit.ARCHITECTURES, name, spec)
    return model_of(name, convention, conv4_stride=16, **BARE)


def test_arrays_of_other_networks_stay_the_same(rng):
    arrays = {"conv1.weight": rng.normal(size=(3, 2)), "stem/kernel": rng.normal(size=4)}
    found = blocks.regular(arrays)
    assert list(found) == list(arrays)
    assert all(found[name] is array for name, array in arrays.items())


@pytest.mark.parametrize("stacked", [False, True])
def test_an_archive_of_big_vision(rng, tmp_path, monkeypatch, stacked):
    """Two towers, heads of the attention as axes, a head, and perhaps stacked blocks."""
    model = small(monkeypatch, "siglip", "siglip2_b16_224")
    ours, theirs = foreign(NAMINGS["siglip"][0], model, rng)
    for name, array in theirs.items():
        if "MultiHead" in name:
            shape = (2, 4, 8) if "out/kernel" in name else (*array.shape[:-1], 2, 4)
            theirs[name] = array if "out/bias" in name else array.reshape(shape)
    if stacked:
        layers = [{n: a for n, a in theirs.items() if f"block_{i}/" in n} for i in range(12)]
        for parts in zip(*(sorted(layer) for layer in layers), strict=True):
            name = parts[0].replace("block_0/", "block/")
            theirs[name] = np.stack([theirs.pop(part) for part in parts])
    theirs["MAPHead_0/probe"] = np.zeros((1, 1, 8), np.float32)
    towers = {f"params/img/{name}": array for name, array in theirs.items()}
    towers |= {"params/txt/Embed_0/embedding": np.zeros((5, 8)), "params/t": np.zeros(1)}
    path = tmp_path / "siglip2.npz"
    np.savez(path, **towers)
    found = find_weights(str(path))
    assert found.fields["backbone"] == "siglip2_b16_224"
    assert found.fields["convention"] == "siglip"
    assert found.fields["conv4_stride"] == 16
    converted = weights.convert(found.source, weights.read_arrays(str(path)), model)
    converted = traverse_util.flatten_dict(converted)
    assert set(converted) == set(ours)
    for key, values in converted.items():
        np.testing.assert_array_equal(values, ours[key], err_msg=str(key))


def test_query_key_and_value_in_one_array(rng, monkeypatch):
    model = small(monkeypatch, "dinov2", "dinov2_s14")
    ours, theirs = foreign(NAMINGS["dinov2"][1], model, rng)
    for block in range(12):
        for leaf in ("weight", "bias"):
            names = [f"blocks.{block}.attn.{part}.{leaf}" for part in ("query", "key", "value")]
            fused = np.concatenate([theirs.pop(name) for name in names])
            theirs[f"blocks.{block}.attn.qkv.{leaf}"] = fused
    theirs["mask_token"] = np.zeros((1, 8), np.float32)
    converted = weights.convert("dinov2", blocks.regular(theirs), model)
    for key, values in traverse_util.flatten_dict(converted).items():
        np.testing.assert_array_equal(values, ours[key], err_msg=str(key))


def test_architectures_of_equal_names_are_told_apart_by_shapes(rng, monkeypatch):
    """The base model has the names of the small one, and so has that of another grid."""
    _, theirs = foreign(NAMINGS["dinov2"][0], small(monkeypatch, "dinov2", "dinov2_b14"), rng)
    assert weights.identify(theirs) == weights.Identity("dinov2", "dinov2_b14", "dinov2")
    theirs["embeddings.position_embeddings"] = np.zeros((1, 5, 8), np.float32)
    assert weights.identify(theirs) is None
    with pytest.raises(UserError, match="position_embeddings"):
        weights.convert("dinov2", theirs, small(monkeypatch, "dinov2", "dinov2_b14"))
