"""Losses and norms of classes that are split over devices, beside those of whole classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.losses import arcface_loss, is_correct, softmax_loss
from delg_jax.models import class_shards
from delg_jax.models.class_shards import ClassShards

AXIS = "devices"
IMAGES = 3  # of a device
ONE_HOST = ClassShards(11, AXIS, 8)
TWO_HOSTS = ClassShards(11, AXIS, 4, 2)


def split(kernel, shards):
    """[D, C] to [all devices, D, classes of a device], zeros for classes that do not exist."""
    missing = shards.devices * shards.per_device - shards.classes
    padded = np.pad(kernel, [(0, 0), (0, missing)])
    parts = np.stack(np.split(padded, shards.devices, axis=1))
    return np.concatenate([parts] * shards.hosts)


@pytest.fixture
def problem(rng):
    """Descriptors of all devices, labels, and a kernel of 11 classes."""
    vectors = rng.normal(size=(8, IMAGES, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    kernel = rng.normal(size=(5, 11)).astype(np.float32)
    kernel /= np.linalg.norm(kernel, axis=0)
    return vectors, rng.integers(0, 11, (8, IMAGES)), kernel


def whole_loss(vectors, labels, kernel, scale, margin):
    cosines = jnp.asarray(vectors.reshape(-1, 5)) @ kernel
    return arcface_loss(cosines, labels.reshape(-1), scale, margin)


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("shards", [ONE_HOST, TWO_HOSTS], ids=["one host", "two hosts"])
def test_loss_and_gradients_are_those_of_the_whole_classifier(problem, shards, margin):
    vectors, labels, kernel = problem

    def device(vectors, labels, part, scale):
        def loss(vectors, part, scale):
            cosines = shards.gather(vectors) @ part
            found = arcface_loss(cosines, shards.gather(labels), scale, margin, shards)
            return jnp.mean(found), found

        (_, losses), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(
            vectors, part, scale
        )
        tree = {"descriptors": gradients[0], "scale": gradients[2]}
        mean = shards.mean_gradients({"a_classifier": {"kernel": gradients[1]}, **tree})
        return losses, gradients[0], mean["a_classifier"]["kernel"], mean["scale"]

    run = jax.pmap(device, AXIS, in_axes=(0, 0, 0, None))
    parts = split(kernel, shards)
    losses, of_vectors, of_parts, of_scale = run(vectors, labels, parts, jnp.float32(4.0))
    expected = whole_loss(vectors, labels, kernel, jnp.float32(4.0), margin)
    np.testing.assert_allclose(losses.reshape(-1), expected, rtol=1e-5)
    gradients = jax.grad(
        lambda *values: jnp.mean(whole_loss(values[0], labels, values[1], values[2], margin)),
        (0, 1, 2),
    )(jnp.asarray(vectors), jnp.asarray(kernel), jnp.float32(4.0))
    np.testing.assert_allclose(of_vectors / 8, gradients[0], atol=1e-6)  # of a device's own mean
    np.testing.assert_allclose(of_parts, split(np.asarray(gradients[1]), shards), atol=1e-6)
    np.testing.assert_allclose(of_scale, np.full(8, gradients[2]), rtol=1e-4)


@pytest.mark.parametrize("shards", [ONE_HOST, TWO_HOSTS], ids=["one host", "two hosts"])
def test_ties_go_to_the_lower_class_and_padding_never_wins(shards):
    """All scores are negative, so that the zeros of padded columns would win."""
    scores = np.full((8 * IMAGES, 11), -2.0, np.float32)
    scores[:, 4] = scores[:, 9] = -1.0
    labels = np.tile([4, 9, 10], 8).reshape(8, IMAGES)

    def device(part, labels):
        known = shards.gather(labels)
        return is_correct(part, known, shards), softmax_loss(part, known, shards)

    hosts = scores.reshape(shards.hosts, -1, 11)
    parts = np.concatenate([split(rows, shards)[: shards.devices] for rows in hosts])
    correct, losses = jax.pmap(device, AXIS)(parts, labels)
    assert correct.tolist() == [[True, False, False]] * 8
    np.testing.assert_array_equal(correct.reshape(-1), is_correct(scores, labels.reshape(-1)))
    np.testing.assert_allclose(
        losses.reshape(-1), softmax_loss(jnp.asarray(scores), labels.reshape(-1)), rtol=1e-6
    )


def test_large_logits_stay_finite():
    logits = np.zeros((8, 8, 2), np.float32)
    logits[3, :, 1] = 1e4  # class 7
    labels = np.full((8, 1), 7)
    labels[0] = 0
    losses = jax.pmap(
        lambda part, known: softmax_loss(part, ONE_HOST.gather(known), ONE_HOST), AXIS
    )(logits, labels)
    np.testing.assert_allclose(losses[:, 0], [1e4, *[0.0] * 7])


@pytest.mark.parametrize("shards", [ONE_HOST, TWO_HOSTS], ids=["one host", "two hosts"])
def test_the_norm_counts_every_class_once(rng, shards):
    kernel, other = rng.normal(size=(5, 11)).astype(np.float32), np.float32(3.0)
    found = jax.pmap(
        lambda part, rest: class_shards.norm(
            {"a_classifier": {"dense": {"kernel": part}, "scale": rest}}, shards
        ),
        AXIS,
        in_axes=(0, None),
    )(split(kernel, shards), other)
    expected = np.sqrt((kernel.astype(float) ** 2).sum() + 9.0)
    np.testing.assert_allclose(found, np.full(8, expected), rtol=1e-6)
    assert float(class_shards.norm({"a": kernel, "b": other})) == pytest.approx(expected)


def test_only_classifiers_are_split():
    tree = {
        "global_classifier": {"kernel": 1, "scale": 2},
        "local_classifier": {"dense": {"kernel": 3, "bias": 4}},
        "whiten": {"kernel": 5, "bias": 6},
        "resnet": {"conv": {"kernel": 7}},
    }
    nested = [{"trace": tree}, ()]
    split, whole = class_shards.partition(nested)
    assert (split, sorted(whole)) == ([1, 4, 3], [2, 5, 6, 7])
    assert class_shards.combine(nested, split, whole) == nested
    assert class_shards.partition(class_shards.map_split(lambda x: -x, nested))[0] == [-1, -4, -3]
