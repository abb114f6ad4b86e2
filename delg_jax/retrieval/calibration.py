"""Inliers of wrong images, measured in a database against itself and kept in the workdir."""

import pathlib

import jax
import ml_collections
import numpy as np

from delg_jax import json_files
from delg_jax import workdir as outputs
from delg_jax.features import LocalFeatures
from delg_jax.features.experiment import Extracted, sections
from delg_jax.features.in_memory import CachedFeatures
from delg_jax.progress import Progress
from delg_jax.rerank import SpatialSettings, spatial_verification
from delg_jax.rerank.chance import ChanceModel
from delg_jax.retrieval.settings import RerankSettings

FOLDER = "calibration"
# Strongest features that the image in the role of the query keeps: queries may be small parts
SHARES = (1.0, 0.5, 0.25, 0.125)
QUERIES = 6  # of each share
IMAGES = 10  # that each of them is compared with
_SAMPLE = 1000  # images of a large database, whose descriptors are read

_FILE = "inliers.json"
_SUBJECT, _REMEDY = "calibration", "delete the folder to measure it again"
_FIELDS = json_files.fields(
    {
        "source": json_files.text,
        "features": json_files.every(json_files.count),
        "inliers": json_files.every(json_files.count),
    }
)
# Fields of `config.rerank.sp` that no count depends on
_IDLE = ("short_list", "min_inliers", "score", "pair_block", "hamming")


def wrong_pairs(
    database: CachedFeatures, settings: SpatialSettings, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Verifies pairs of database images that show different things, as far as one can know.

    An image is paired with some of the half that is least similar to it by global descriptors.

    Args:
      database: its features.
      settings: of spatial verification.
      seed: of the draws.

    Returns:
      Features of the image in the role of the query, and inliers, both int32 [P]; P is a fixed
      number, or less if there are few images.
    """
    rng = np.random.default_rng(seed)
    images = np.flatnonzero(database.present("local"))
    if len(images) > _SAMPLE:
        images = np.sort(rng.choice(images, _SAMPLE, replace=False))
    local, key = database.local_features(settings.max_features), jax.random.key(seed)
    pairs: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int32), np.zeros(0, np.int32))]
    drawn = np.resize(rng.permutation(images), QUERIES * len(SHARES) if len(images) > 1 else 0)
    with Progress("calibrate inliers", len(drawn), "photograph") as progress:
        for number, image in enumerate(drawn.tolist()):
            others = _unlike(database, image, images)
            others = np.sort(rng.choice(others, min(IMAGES, len(others)), replace=False))
            query = LocalFeatures(*(np.asarray(field[image]) for field in local))
            query = _strongest(query, SHARES[number % len(SHARES)])
            candidates = LocalFeatures(*(np.asarray(field[others]) for field in local))
            found = spatial_verification.count_inliers(query, candidates, others, key, settings)
            pairs.append((np.full(len(found), query.mask.sum(), np.int32), found))
            progress.advance()
    features, inliers = map(np.concatenate, zip(*pairs, strict=True))
    return features, inliers


def load_or_measure(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    extracted: Extracted,
    database: CachedFeatures,
) -> ChanceModel | None:
    """The model of wrong images; measured once for the features and the settings.

    Args:
      config: the whole tree.
      workdir: keeps what was measured, unless it is read-only.
      extracted: whose database is calibrated.
      database: its features, which may be cached.

    Returns:
      The model; None if there are too few images.

    Raises:
      UserError: if what is stored is damaged.
    """
    settings, folder = RerankSettings.of(config.rerank).sp, workdir / FOLDER
    spatial = tuple(f"rerank.sp.{name}" for name in config.rerank.sp if name not in _IDLE)
    decided_by = (*sections(config), *spatial, "seed")
    extra, source = {"weights": extracted.weights}, extracted.database.digest()
    stored = None
    if outputs.is_of(folder, config, decided_by, extra):
        stored = json_files.read(folder / _FILE, _SUBJECT, _FIELDS, _REMEDY)
    if stored is not None and stored["source"] == source:
        return ChanceModel.fit(np.array(stored["features"]), np.array(stored["inliers"]))
    features, inliers = wrong_pairs(database, settings, config.seed)
    content = {"source": source, "features": features.tolist(), "inliers": inliers.tolist()}
    with outputs.where_writable(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / outputs.CONFIG_FILE).unlink(missing_ok=True)  # until its content is there
        outputs.write_json(folder / _FILE, content)
        outputs.describe(folder, config, decided_by, extra)
    return ChanceModel.fit(features, inliers)


def _unlike(database: CachedFeatures, image: int, images: np.ndarray) -> np.ndarray:
    """The images that an image is paired with."""
    others = images[images != image]
    descriptors = database.global_descriptors()
    similarity = np.asarray(descriptors[others]) @ np.asarray(descriptors[image])
    return others[np.argsort(similarity, kind="stable")[: -(-len(others) // 2)]]


def _strongest(query: LocalFeatures, share: float) -> LocalFeatures:
    """The strongest features of an image; the others are masked, so that shapes stay the same."""
    mask = np.asarray(query.mask)
    scores = np.where(mask, query.scores, -np.inf)
    kept = np.argsort(-scores, kind="stable")[: int(np.ceil(share * mask.sum()))]
    return query._replace(mask=np.isin(np.arange(len(mask)), kept) & mask)
