"""Photographs of one's own: any tree of images, without ground truth; `delg search FOLDER`.

    delg extract --config=photos --weights=efficientnet_lite2 --workdir=DIR \
        --config.data.root=PHOTOS

Like configs/local_to_global.py, for photographs of any size: they are shrunk to 1024 pixels, and
padded to a few canvases, so that few programs are compiled. Bad files are listed in skipped.csv.
"""

import ml_collections

from configs import local_to_global
from delg_jax.configuration import parse_argument


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the search in a folder of photographs; it takes no argument."""
    parse_argument(argument, {})
    config = local_to_global.get_config()
    config.data.name = "images"
    config.data.max_skipped = 1_000_000_000
    config.extract.max_size = 1024
    config.extract.reduced_decode = True
    config.extract.shape_step = 0
    # Nothing to build, and new photographs count at once; an answer in seconds on two cores
    config.update_from_flattened_dict(local_to_global.ON_THE_FLY)
    config.search.graph_features = 64
    config.search.idf_images = 100
    return config
