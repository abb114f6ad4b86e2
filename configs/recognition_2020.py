"""The baseline of the Google Landmark Recognition Challenge 2020: recognition by retrieval.

    delg evaluate --config=configs/recognition_2020.py --config.data.root=DIR \
        --config.model.checkpoint=r50delg_gldv2clean --workdir=runs/recognition

Its published notebook: three scales, also for local features, 1,000 of them with an attention of at
least 175 (of r50delg_gld); matches by a k-d tree at a distance of at most 0.9; a homography by
RANSAC at 4 pixels, 1,000 trials, four inliers or fewer count as none; a training image scores
min(inliers, 70) / 70 plus the global cosine; the first 10 are re-ranked, and a landmark scores the
sum over its images among the best 5.

The argument `clean` searches the cleaned training images (gldv2_clean_recognition) instead of all.
"""

import ml_collections

from configs import default
from delg_jax.configuration import parse_argument

_SCALES = (0.70710677, 1.0, 1.4142135)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the evaluation on the test queries of Google Landmarks v2: of all, or `clean`."""
    clean = parse_argument(argument, {"clean": False}).clean
    config = default.get_config()
    config.data.name = "gldv2_clean_recognition" if clean else "gldv2_recognition"
    config.extract.local_scales = config.extract.global_scales = _SCALES
    config.extract.attention_threshold = 175.0
    config.rerank.sp.short_list = 10
    config.rerank.sp.max_distance = 0.9
    config.rerank.sp.model = "homography"
    config.rerank.sp.inlier_threshold = 4.0
    config.rerank.sp.min_inliers = 5
    config.rerank.sp.score = "combined"
    config.eval.methods = ("global", "global+sp")
    config.eval.recognition_top = 5
    return config
