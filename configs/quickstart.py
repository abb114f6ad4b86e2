"""The whole system in minutes on two cores: synthetic landmarks and a tiny network.

    delg train    --config=configs/quickstart.py --workdir=runs/quickstart
    delg evaluate --config=configs/quickstart.py --workdir=runs/quickstart

The argument `smoke` makes everything so small that it takes seconds, for tests.
"""

import ml_collections

from configs import default, local_to_global
from delg_jax.configuration import parse_argument


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the quickstart, or with `smoke` its smallest version."""
    smoke = parse_argument(argument, {"smoke": False}).smoke
    config = default.get_config()
    config.model.backbone = "tiny"
    config.model.convention = "torchvision"
    config.model.conv4_stride = 16
    config.model.global_dim = 128
    config.model.attention_dim = 64
    config.model.local_dim = 64
    config.data.image_size = 128
    config.data.crop_area = (0.3, 1.0)
    config.train.steps = 1000
    config.train.batch_size = 32
    config.train.learning_rate = 0.04
    config.train.warmup_steps = 100
    config.train.arcface_scale = 16.0
    config.train.log_every = 100
    config.train.eval_every = 500
    config.train.checkpoint_every = 500
    config.train.keep_checkpoints = 2
    config.extract.local_scales = (0.70710677, 1.0, 1.4142135, 2.0)
    config.extract.max_features = 200
    config.extract.shape_step = 160  # images have 160 pixels: few shapes, few compilations
    config.extract.batch_pixels = 409_600
    config.search.kernel = "power"
    config.search.power = 6.0
    config.search.max_features = 100
    local_to_global.rank_by_profiles(config.rerank.mds)
    config.rerank.mds.short_list = 400
    if smoke:
        config.data.synthetic.size = "tiny"
        config.data.image_size = 64
        config.data.workers = 0
        config.train.steps = config.train.eval_every = 4
        config.train.warmup_steps = 1
        config.train.batch_size = 8
        config.train.checkpoint_every = 2
        config.extract.local_scales = config.extract.global_scales = (0.70710677, 1.0, 1.4142135)
    return config
