"""Numbers at their limits, through every method of evaluation and the parts it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.models import heads
from delg_jax.rerank import MdsSettings, distances
from delg_jax.rerank.mds import scores
from delg_jax.retrieval.methods import METHODS
from tests import stores
from tests.properties import worlds


def _images(kind):
    """Database and queries of a kind, of few sizes, because each size compiles."""
    rng = np.random.default_rng(7)
    one = worlds.image(rng)
    plain = [worlds.image(rng) for _ in range(4)]
    return {
        "plain": (plain, [worlds.image(rng), worlds.image(rng)]),
        "zero descriptors": ([worlds.image(rng, 4, 0.0, 0.0) for _ in range(4)], [one] * 2),
        "zero query": (plain, [worlds.image(rng, 4, 0.0, 0.0)]),
        "one keypoint": (
            [worlds.image(rng, 1) for _ in range(4)],
            [worlds.image(rng, 1) for _ in range(2)],
        ),
        "no keypoints": ([worlds.image(rng, 0) for _ in range(4)], [worlds.image(rng, 0)]),
        "one image": ([one], [worlds.image(rng)]),
        "the image itself": ([one], [one]),
        "duplicates": ([one] * 4, [one, worlds.image(rng)]),
        "skipped images": ([one, "no picture", one, "empty"], [worlds.image(rng), "cropped away"]),
    }[kind]


_KINDS = ("plain", "one keypoint", "one image", "the image itself", "duplicates", "skipped images")


@pytest.mark.parametrize(
    ("kind", "part", "features"),
    [
        ("zero descriptors", "database", "global"),
        ("zero query", "queries", "global"),
        ("no keypoints", "database", "local"),
    ],
)
def test_a_search_without_any_features_is_refused(kind, part, features, monkeypatch, tmp_path):
    database, queries = _images(kind)
    found = worlds.extracted(tmp_path / "features", database, queries)
    with pytest.raises(UserError, match=f"{part}.*no {features} features"):
        worlds.evaluate(monkeypatch, worlds.small_config(), found, tmp_path / "w")


@pytest.mark.parametrize("kind", _KINDS)
def test_every_method_ranks_every_image_once_and_reproducibly(kind, monkeypatch, tmp_path):
    database, queries = _images(kind)
    found = worlds.extracted(tmp_path / "features", database, queries)
    config = worlds.small_config()
    runs = [
        worlds.evaluate(monkeypatch, config, found, tmp_path / name) for name in ("first", "again")
    ]
    for metrics, rankings in runs:
        assert set(metrics["methods"]) == set(METHODS)
        worlds.require_sound(metrics, rankings, len(queries), len(database))
    for name, ranks in runs[0][1].items():
        np.testing.assert_array_equal(ranks, runs[1][1][name])
        # A query that resembles nothing may be moved anywhere in a space of fewer dimensions
        moved = kind != "duplicates" and ("mds" in name or "superglobal" in name)
        if (
            kind in ("one image", "duplicates") and not moved and ":" not in name
        ):  # of equals, the lower index comes first
            np.testing.assert_array_equal(ranks[0], np.arange(len(database)), name)


@pytest.mark.parametrize("engine", ["cann", "ivf", "asmk"])
@pytest.mark.parametrize("kind", ["one keypoint", "one image", "duplicates", "zero descriptors"])
def test_approximate_engines_rank_every_image_once(engine, kind, monkeypatch, tmp_path):
    database, queries = _images(kind)
    found = worlds.extracted(tmp_path / "features", database, queries)
    changes = {"search.engine": engine, "eval.methods": ("local", "local+mds")}
    config = configuration.override(worlds.small_config(), changes)
    metrics, rankings = worlds.evaluate(monkeypatch, config, found, tmp_path / "w")
    worlds.require_sound(metrics, rankings, len(queries), len(database))


@pytest.mark.parametrize(
    ("distance", "method"),
    [
        *((form, "classical") for form in distances.FORMS),
        ("chord", "smacof"),
        ("reciprocal", "smacof"),
        ("reciprocal", "landmark"),
    ],
)
def test_embeddings_of_any_similarities_are_finite(distance, method):
    """Negative, asymmetric, above 1, disconnected: what local similarities can be."""
    rng = np.random.default_rng(5)
    drawn = rng.uniform(-1.5, 1.5, (6, 6)).astype(np.float32)
    blocks = np.kron(np.eye(2, dtype=np.float32), np.ones((3, 3), np.float32))
    settings = MdsSettings(dim=3, distance=distance, method=method, landmarks=3, iterations=3)
    for pairs in (drawn, -np.abs(drawn), np.triu(np.abs(drawn)), blocks, 1e30 * drawn, 0 * drawn):
        for query in (pairs[0], -pairs[0], np.zeros(6, np.float32)):
            found = scores(query, pairs, np.ones(6, bool), settings)
            assert np.isfinite(np.asarray(found)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["global_descriptor", "locations", "descriptors"])
def test_a_store_names_the_image_whose_features_are_not_finite(value, field, tmp_path):
    image = worlds.image(np.random.default_rng(6))
    if field == "global_descriptor":
        image.global_descriptor[1] = value
    else:
        getattr(image.local, field)[2, 1] = value
    with pytest.raises(UserError, match=f"features = 'image1': .*{field.replace('_', ' ')}"):
        stores.fill(tmp_path / "store", [worlds.image(np.random.default_rng(8)), image])


def test_the_largest_numbers_of_bfloat16_make_finite_unit_descriptors():
    largest = float(jnp.finfo(jnp.bfloat16).max)
    normalize = jax.jit(heads.l2_normalize)
    for value in (largest, -largest, float(jnp.finfo(jnp.bfloat16).tiny), 0.0):
        vectors = np.full((2, 2048), value, jnp.bfloat16)
        norms = np.linalg.norm(np.asarray(normalize(vectors), np.float64), axis=-1)
        assert np.isfinite(norms).all()
        assert (norms < 1.01).all()
