"""Inliers of RANSAC on planted and random matches, beside scikit-image and OpenCV.

    python -m experiments.benchmarks.ransac_inliers

In planted pairs some matches follow a known transformation, with noise; the others are random. The
first table gives the share of planted matches that become inliers. In random pairs all matches are
random: the second table gives how many inliers occur by chance, which config.rerank.sp.min_inliers
must exceed. All programs try the same number of hypotheses; peers that are not installed are left
out. Writes ransac_inliers.json and ransac_inliers.md into --results.
"""

import contextlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.benchmarks.peers import libraries
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.reports import tables
from delg_jax.rerank.ransac import RansacSettings, estimate

SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)
NOISES = (0.0, 2.0, 5.0)  # standard deviation, pixels
MATCHES = (20, 100, 1000)
LEAST_PLANTED = 8  # with fewer planted matches, chance may find as many
SIDE = 1000.0  # pixels of a square image
INLIER_THRESHOLD = 20.0  # pixels


class Planted(NamedTuple):
    """Matches of pairs, source and target [M, K, 2], and which of them are planted [M, K]."""

    source: np.ndarray
    target: np.ndarray
    truth: np.ndarray


def plant(
    rng: np.random.Generator, model: str, pairs: int, matches: int, share: float, noise: float
) -> Planted:
    """Draws pairs whose views are rotated by up to 30 degrees and scaled by 0.6 to 1.6."""
    source = rng.uniform(0, SIDE, (pairs, matches, 2))
    angles, scales = rng.uniform(-0.5, 0.5, pairs), rng.uniform(0.6, 1.6, pairs)
    cosine, sine = scales * np.cos(angles), scales * np.sin(angles)
    linear = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)
    linear += rng.uniform(-0.15, 0.15, linear.shape)
    centred = source - SIDE / 2
    target = np.einsum("mij,mkj->mki", linear, centred)
    if model == "homography":
        tilt = rng.uniform(-4e-4, 4e-4, (pairs, 1, 2))
        target /= 1 + (tilt * centred).sum(axis=2, keepdims=True)
    target += SIDE / 2 + rng.normal(scale=noise, size=target.shape)
    truth = np.broadcast_to(np.arange(matches) < round(share * matches), (pairs, matches))
    chance = rng.uniform(0, SIDE, target.shape)
    return Planted(source, np.where(truth[:, :, None], target, chance), truth)


def ours(planted: Planted, options: RansacSettings) -> np.ndarray:
    """Returns the inliers of our kernel, bool [M, K]."""
    pairs, matches, _ = planted.source.shape
    arguments = (jnp.asarray(side, jnp.float32) for side in (planted.source, planted.target))
    mask, ids = jnp.ones((pairs, matches), bool), jnp.arange(pairs)
    return np.asarray(estimate(*arguments, mask, ids, jax.random.key(0), options).inlier_mask)


def peers(model: str, trials: int) -> dict[str, libraries.Ransac]:
    """Returns the RANSAC of each peer that is installed."""
    makers = {"OpenCV": libraries.opencv, "scikit-image": libraries.scikit_image}
    found = {}
    for name, make in makers.items():
        with contextlib.suppress(UserError):
            found[name] = make(model, trials, INLIER_THRESHOLD)
    return found


def recalls(
    model: str, share: float, noise: float, matches: int, pairs: int, trials: int
) -> dict[str, float] | None:
    """Returns the share of planted matches each program finds; None with too few planted."""
    if share * matches < LEAST_PLANTED:
        return None
    rng = np.random.default_rng([round(100 * share), round(noise), matches])
    planted = plant(rng, model, pairs, matches, share, noise)
    options = RansacSettings(trials, INLIER_THRESHOLD, model)
    optimized = RansacSettings(trials, INLIER_THRESHOLD, model, local_optimization=True)
    found = {"ours": ours(planted, options), "ours, optimised": ours(planted, optimized)}
    for name, peer in peers(model, trials).items():
        pairs_of = zip(planted.source, planted.target, strict=True)
        found[name] = np.stack([peer(source, target) for source, target in pairs_of])
    return {name: float(inliers[planted.truth].mean()) for name, inliers in found.items()}


def by_chance(matches: int, pairs: int, options: RansacSettings, block: int = 100) -> np.ndarray:
    """Returns the number of inliers of pairs with random matches, int [pairs]."""
    counts = []
    for start in range(0, pairs, block):
        rng = np.random.default_rng([matches, start])
        random = plant(rng, options.model, min(block, pairs - start), matches, 0.0, 0.0)
        counts.append(ours(random, options).sum(axis=1))
    return np.concatenate(counts)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_integer("pairs", 5, "Planted pairs per setting.", flag_values=values)
    flags.DEFINE_integer("random_pairs", 10_000, "Random pairs in total.", flag_values=values)
    flags.DEFINE_integer("trials", 1000, "Hypotheses per pair.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Runs both comparisons and prints the tables."""
    rows = []
    for model in ("affine", "homography"):
        for share in SHARES:
            cells = [
                recalls(model, share, noise, matches, values.pairs, values.trials)
                for noise in NOISES
                for matches in MATCHES
            ]
            cells = [cell for cell in cells if cell is not None]
            mean = {name: float(np.mean([cell[name] for cell in cells])) for name in cells[0]}
            rows.append({"model": model, "share": share, "cells": cells, "recall": mean})
    header = ("model, planted", *rows[0]["recall"])
    lines = [
        (f"{row['model']}, {row['share']:.0%}", *(f"{v:.3f}" for v in row["recall"].values()))
        for row in rows
    ]
    recall_table = tables.markdown(header, lines)
    chance = {}
    for matches in MATCHES:
        counts = by_chance(
            matches, values.random_pairs // len(MATCHES), RansacSettings(values.trials)
        )
        chance[matches] = np.bincount(counts).tolist()
    lines = [
        (str(matches), *(str(v) for v in _quantiles(histogram)))
        for matches, histogram in chance.items()
    ]
    chance_table = tables.markdown(("random matches", "median", "99 %", "most"), lines)
    text = f"{recall_table}\n\n{chance_table}\n"
    content = {"planted": rows, "by_chance": chance}
    harness.write_result(values.results, "ransac_inliers", content, text)
    print(text, end="")


def _quantiles(histogram: list[int]) -> tuple[int, int, int]:
    """Median, 99th percentile and maximum of the values that a histogram counts."""
    total = np.cumsum(histogram)
    median, high = (int(np.searchsorted(total, share * total[-1])) for share in (0.5, 0.99))
    return median, high, len(histogram) - 1


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
