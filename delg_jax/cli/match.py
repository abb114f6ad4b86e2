"""Matches two images by their local features, as spatial verification does.

    delg match A.jpg B.jpg --config=configs/quickstart.py --workdir=runs/quickstart

Prints the numbers of matches and inliers and the transformation from B to A, and draws both images
with a line for each inlier. The settings are config.rerank.sp.
"""

import pathlib

import numpy as np
from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError
from delg_jax.reports import matches

POSITIONAL = "A B"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_weights(values)
    arguments.define_path(
        values,
        "output",
        None,
        f"Drawing to write ({', '.join(matches.FORMATS)}); by default match.png in the workdir.",
    )


def run(values: flags.FlagValues, *names: str) -> None:
    """Matches, prints and draws."""
    from delg_jax.retrieval.pair_matching import match_images

    arguments.use_weights(values)
    if len(names) != 2:
        raise UserError("delg match", " ".join(names), "must be two image files, A B")
    output = values.output or pathlib.Path(values.workdir) / "match.png"
    output = matches.check_path("--output", output)
    pair = match_images(values.config, values.workdir, *names, values.overwrite)
    found = pair.verification
    inliers = int(found.inlier_mask.sum())
    least = values.config.rerank.sp.min_inliers
    verdict = "verified" if inliers >= least else f"not verified: fewer than {least}"
    print(f"matches  {len(found.matches)}")
    print(f"inliers  {inliers} ({verdict})")
    if found.transform.any():
        print("transformation of B to A, for (x, y, 1):")
        for row in _x_first(found.transform):
            print("  " + " ".join(f"{value:12.6g}" for value in row))
    matches.save(matches.draw(pair.images, pair.locations, found.inlier_mask), output)
    print(f"drawing  {output}")


def _x_first(transform: np.ndarray) -> np.ndarray:
    """Turns a matrix for (y, x, 1) into one for (x, y, 1)."""
    order = [1, 0, 2]
    return transform[order[: len(transform)]][:, order]
