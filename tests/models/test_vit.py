"""Vision Transformers against a reference in NumPy, and on canvases of other images."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax.errors import UserError
from delg_jax.models import delg, extent, vit
from delg_jax.models.convention import CONVENTIONS
from delg_jax.models.vit import Architecture, VisionTransformer
from tests.tiny import change_architecture

SMALL = {
    "dinov2": Architecture("dinov2", 8, 4, 12, 3, 2, 24, registers=2),
    "gated": Architecture("dinov2", 8, 3, 12, 3, 2, 16, gated=True),
    "siglip": Architecture("siglip", 8, 4, 12, 3, 3, 24),
}


interpolation = jax.jit(vit.interpolation, static_argnums=(1, 2, 3))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Three blocks of few channels, under the names of `SMALL`."""
    for name, architecture in SMALL.items():
        change_architecture(monkeypatch, vit.ARCHITECTURES, name, architecture)


def cubic(x, slope):
    """The bicubic kernel."""
    x = abs(x)
    if x <= 1:
        return (slope + 2) * x**3 - (slope + 3) * x**2 + 1
    return slope * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def axis_weights(count, grid, antialias):
    """Weights [count, grid] of 4 neighbours; with antialias, of all that a wider kernel covers."""
    weights = np.zeros((count, grid))
    step = grid / count
    for i in range(count):
        centre = (i + 0.5) * step - 0.5
        if antialias:
            weights[i] = [cubic((j - centre) / max(step, 1), -0.5) for j in range(grid)]
            weights[i] /= weights[i].sum()
            continue
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(j, 0), grid - 1)] += cubic(centre - j, -0.75)
    return weights


def interpolated(positions, rows, columns, antialias):
    """Positions [grid, grid, C] as [rows, columns, C]."""
    down, across = (axis_weights(n, len(positions), antialias) for n in (rows, columns))
    return np.einsum("yi,xj,ijc->yxc", down, across, positions)


def reference(params, name, image, block=2):
    """The maps of an image [H, W, 3]: after `block` blocks, and after all."""
    spec = SMALL[name]
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def normed(x, layer):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * layer["scale"] + layer["bias"]

    def gelu(x):
        if spec.is_dinov2:
            return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    rows, columns = (side // spec.patch for side in image.shape[:2])
    image = image[: rows * spec.patch, : columns * spec.patch]
    patches = image.reshape(rows, spec.patch, columns, spec.patch, 3).swapaxes(1, 2)
    x = np.einsum("ijabc,abcd->ijd", patches, params["embed"]["kernel"]) + params["embed"]["bias"]
    special = int(spec.is_dinov2)
    positions = params["positions"][0, special:].reshape(spec.grid, spec.grid, -1)
    x = x + interpolated(positions, rows, columns, antialias=spec.registers > 0)
    x = x.reshape(rows * columns, -1)
    if spec.is_dinov2:
        tokens = [params["class_token"][0] + params["positions"][0, :1]]
        tokens += [params["registers"][0]] if spec.registers else []
        x = np.concatenate([*tokens, x])
        special += spec.registers
    maps = []
    for number in range(spec.depth):
        layers = params[f"block{number}"]
        factors = [layers[f"layer_scale{n}"]["gamma"] if spec.is_dinov2 else 1.0 for n in (1, 2)]
        y = normed(x, layers["norm1"])
        query, key, value = (
            dense(y, layers[part]).reshape(len(x), spec.heads, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        y = np.einsum("hqk,khd->qhd", shares, value).reshape(x.shape)
        x = x + factors[0] * dense(y, layers["out"])
        y = normed(x, layers["norm2"])
        if spec.gated:
            gate, y = np.split(dense(y, layers["gated_in"]), 2, axis=-1)
            y = dense(gate / (1 + np.exp(-gate)) * y, layers["gated_out"])
        else:
            y = dense(gelu(dense(y, layers["fc1"])), layers["fc2"])
        x = x + factors[1] * y
        maps.append(normed(x[special:], params["norm"]).reshape(rows, columns, -1))
    return maps[block - 1], maps[-1]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_it_equals_the_reference(rng, random_variables, quick_jit, name):
    """At the grid of the positions, below and above it, and with pixels behind the last patch."""
    network = VisionTransformer(name)
    variables = random_variables(network, np.zeros((1, 64, 64, 3), np.float32))
    for size in ((32, 32), (24, 24), (53, 17))[: 1 if name == "gated" else 3]:
        image = rng.normal(size=(1, *size, 3)).astype(np.float32)
        found = quick_jit(network.apply)(variables, image)
        conv4, conv5 = reference(variables["params"], name, image[0])
        for key, expected in (("conv4", conv4), ("conv5", conv5)):
            assert np.std(expected) > 0.1
            np.testing.assert_allclose(found[key], expected[None], rtol=1e-5, atol=1e-5)


def test_another_block_gives_the_local_map(rng, random_variables, quick_jit):
    image = rng.normal(size=(1, 32, 24, 3)).astype(np.float32)
    networks = [VisionTransformer("siglip", block) for block in (1, 3)]
    variables = random_variables(networks[0], image)
    first, last = (quick_jit(network.apply)(variables, image) for network in networks)
    expected, _ = reference(variables["params"], "siglip", image[0], block=1)
    np.testing.assert_allclose(first["conv4"], expected[None], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(last["conv4"], last["conv5"])


# A whole canvas, remainders by the patch, and less than a patch
SIZES = [(48, 56), (33, 47), (1, 5)]


@pytest.mark.parametrize("name", ["dinov2", pytest.param("siglip", marks=pytest.mark.slow)])
def test_images_on_a_canvas_equal_lone_images(rng, random_variables, quick_jit, name):
    network = VisionTransformer(name)
    images = rng.normal(size=(len(SIZES), 48, 56, 3)).astype(np.float32)
    variables, apply = random_variables(network, images[:1]), quick_jit(network.apply)
    canvas = np.full_like(images, np.nan)
    for row, (height, width), image in zip(canvas, SIZES, images, strict=True):
        row[:height, :width] = image[:height, :width]
    together = jax.tree.map(np.asarray, apply(variables, canvas, np.array(SIZES)))
    convention = CONVENTIONS[SMALL[name].convention]
    counts = extent.conv4_sizes(np.array(SIZES), convention, 8)
    np.testing.assert_array_equal(counts, extent.conv5_sizes(np.array(SIZES), convention, 8))
    for i, ((height, width), (rows, columns)) in enumerate(zip(SIZES, counts, strict=True)):
        alone = jax.tree.map(np.asarray, apply(variables, images[i : i + 1, :height, :width]))
        for key in ("conv4", "conv5"):
            assert alone[key].shape[1:3] == (rows, columns)
            found = together[key][i, :rows, :columns]
            np.testing.assert_allclose(found, alone[key][0], rtol=1e-4, atol=1e-5)


def test_the_chunks_of_the_attention_change_nothing(rng):
    query, key, value = rng.normal(size=(3, 2, 11, 2, 4)).astype(np.float32)
    mask = rng.random((2, 11)) < 0.5
    mask[:, 3] = True
    attend = jax.jit(vit.attend, static_argnums=4)
    whole = attend(query, key, value, mask)
    for chunk in (1, 4, 11):
        found = attend(query, key, value, mask, chunk)
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    hidden = np.where(mask[..., None, None], value, 1e9)  # what is masked counts for nothing
    np.testing.assert_array_equal(attend(query, key, hidden, mask), whole)


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_of_the_same_grid_stay_as_they_are(antialias):
    weights = interpolation(np.array([4, 4]), 4, 4, antialias)
    np.testing.assert_array_equal(weights, [np.eye(4), np.eye(4)])


@pytest.mark.parametrize("antialias", [False, True])
def test_a_constant_embedding_stays_constant(antialias):
    weights = np.asarray(interpolation(np.array([1, 3, 7, 20]), 20, 6, antialias))
    for row, count in enumerate((1, 3, 7, 20)):
        np.testing.assert_allclose(weights[row, :count].sum(-1), 1.0, atol=1e-5)
    assert np.isfinite(weights).all()  # or what is hidden would reach what is not


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        # As their publishers count them: DINOv2's model card, and the image towers of SigLIP 2
        ("dinov2_s14", 22.1),
        ("dinov2_b14", 86.6),
        ("dinov2_l14_reg", 304.4),
        ("dinov2_g14", 1136.5),
        ("siglip2_b16_224", 85.8),
        ("siglip2_so400m14_384", 413.0),
    ],
)
def test_published_architectures(architecture, millions):
    network = VisionTransformer(architecture)
    image = jax.ShapeDtypeStruct((1, 56, 56, 3), np.float32)
    params = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) / 1e6
    assert abs(count / millions - 1) < 0.01


def model_of(name, **changes):
    model = default.get_config().model
    convention = SMALL[name].convention if name in SMALL else "dinov2"
    model.update(backbone=name, convention=convention, conv4_stride=8, num_classes=3)
    model.update(global_dim=8, attention_dim=6, local_dim=4, **changes)
    return model


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"convention": "siglip"}, "convention = 'siglip': .*dinov2"),
        ({"conv4_stride": 16}, "conv4_stride = 16: .* 8"),
        ({"conv4_block": 4}, "conv4_block = 4: .*1 to 3"),
        ({"backbone": "dinov2_x14"}, "backbone = 'dinov2_x14': "),
        (
            {"backbone": "tiny", "convention": "torchvision", "conv4_stride": 16, "conv4_block": 1},
            "conv4_block = 1: .* 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, named):
    model = model_of("dinov2")
    model.update(changes)
    with pytest.raises(UserError, match=rf"^config\.model\.{named}"):
        delg.build(model)


@pytest.mark.slow
def test_both_heads_are_those_of_the_image_alone(rng, random_variables, quick_jit):
    module = delg.build(model_of("dinov2"))
    images = rng.integers(0, 256, (2, 64, 96, 3), np.uint8)
    variables = random_variables(module, images, method="classify")
    apply, sizes = quick_jit(module.apply), np.array([[64, 96], [45, 70]])
    together = jax.tree.map(np.asarray, apply(variables, images, sizes))
    alone = jax.tree.map(np.asarray, apply(variables, images[1:, :45, :70]))
    found, expected = together.global_descriptor[1], alone.global_descriptor[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert together.conv4_mask[1].sum() == alone.attention[0].size == 5 * 8
    for name in ("attention", "local_descriptors"):
        found, expected = getattr(together, name)[1, :5, :8], getattr(alone, name)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_what_the_autoencoder_restores_has_both_signs(rng, random_variables, quick_jit):
    module = delg.build(model_of("siglip"))
    images = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    outputs = quick_jit(module.apply)(random_variables(module, images, method="classify"), images)
    assert 0.1 < np.mean(np.asarray(outputs.reconstruction) < 0) < 0.9


def test_positions_are_the_centres_of_patches():
    assert delg.build(model_of("dinov2")).first_centre == 3.5
    assert delg.build(default.get_config().model).first_centre == 0.0


def test_the_gradient_reaches_every_parameter(rng, random_variables, quick_jit):
    module = delg.build(model_of("dinov2", stop_gradient=False))
    images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    variables = random_variables(module, images, method="classify")

    @quick_jit
    @jax.grad
    def gradient(params):
        outputs = module.apply({**variables, "params": params}, images, method="classify")
        return sum(jnp.sum(x**2) for x in (outputs.global_logits, outputs.local_logits))

    found = traverse_util.flatten_dict(gradient(variables["params"])["vit"])
    for path, leaf in found.items():
        assert np.isfinite(leaf).all()
        # A bias of all keys adds the same to all scores of a token, which the softmax removes
        assert path[-2:] == ("key", "bias") or np.abs(leaf).max() > 1e-6
