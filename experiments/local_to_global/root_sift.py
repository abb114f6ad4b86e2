r"""Writes RootSIFT of a data set, so that local-to-global can be measured without a network.

    python -m experiments.local_to_global.root_sift --root=ROOT --output=FILE.h5
    delg evaluate --config=local_to_global --config.data.root=ROOT --workdir=DIR \
        --config.extract.imported_local=FILE.h5 --config.eval.methods=local,local+sp

ROOT has the layout of the Revisited sets. The descriptors get what those of a network get in
configs/local_to_global.py: PCA, fitted to the database, whitening and unit norm. RootSIFT has no
negative entries, so that without it all descriptors resemble each other. The package needs OpenCV.
"""

import pathlib
import sys

import numpy as np
from absl import flags

from configs import local_to_global
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data import open_retrieval
from delg_jax.errors import UserError
from delg_jax.features import pca
from delg_jax.features.extraction import Loader
from delg_jax.features.formats import hloc, sift
from delg_jax.features.image_sets import query_boxes
from delg_jax.progress import Progress

_SAMPLE = 100  # descriptors of an image to which PCA is fitted


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "root", "", "Folder of the data set.")
    arguments.define_path(values, "output", "", "The HDF5 file to write.")
    flags.DEFINE_integer("features", 400, "Features of an image.", 1, flag_values=values)
    flags.DEFINE_integer(
        "pca_dim", 128, "Dimension of the descriptors.", 1, 128, flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Detects, fits, projects and writes."""
    if not values.output:
        raise UserError("--output", values.output, "must name a file")
    config = local_to_global.get_config()
    config.data.root = values.root
    config.extract.max_features = values.features
    data = open_retrieval(config.data)
    detector = sift.require_opencv().SIFT_create(nfeatures=values.features)
    limits = config.extract.max_size, config.data.min_side, config.data.max_pixels
    found = []
    for source, boxes in ((data.database, None), (data.queries, query_boxes(config, data))):
        with Progress("RootSIFT", len(source), "image") as progress:
            loader = Loader(source, boxes, *limits)
            for index, local in sift.features(detector, loader, values.features):
                rooted = local._replace(descriptors=sift.root(local.descriptors))
                found.append((source is data.database, source.names[index], rooted))
                progress.advance()
    rng = np.random.default_rng(0)
    sample = [
        local.descriptors[rng.permutation(len(local.descriptors))[:_SAMPLE]]
        for is_database, _, local in found
        if is_database
    ]
    projection = pca.fit(np.concatenate(sample), values.pca_dim, config.extract.pca_whitening)
    descriptors = np.concatenate([local.descriptors for _, _, local in found])
    ends = np.cumsum([len(local.descriptors) for _, _, local in found])
    projected = np.split(np.asarray(pca.project(descriptors, projection)), ends[:-1])
    with hloc.writing(pathlib.Path(values.output)) as writer:
        for (_, name, local), own in zip(found, projected, strict=True):
            writer.write(name, local._replace(descriptors=own))
    print(f"{len(found)} images")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
