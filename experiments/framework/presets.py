"""The sizes that tables share: configurations and data sets."""

import dataclasses

from configs import delg_r50_gld, landmarks, local_to_global, quickstart, revisited
from delg_jax import configuration
from experiments.framework.experiment import Base, Size

SEVEN_SCALES = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
THREE_SCALES = (0.70710677, 1.0, 1.4142135)

_OXFORD = {"data.name": "revisited_oxford", "data.root": "{data}/roxford5k"}
_PARIS = {"data.name": "revisited_paris", "data.root": "{data}/rparis6k"}
_MILLION = {"data.distractors": "{data}/revisitop1m"}
_GLD = {"data.root": "{data}/gldv1", "model.pretrained": "{weights}/resnet_v1_50.npz"}
PAPER = Size(
    about="networks trained on Google Landmarks v1, evaluated on Revisited Oxford and Paris",
    training=Base(delg_r50_gld.get_config, overrides=_GLD),
    evaluation=Base(revisited.get_config, overrides={"extract.attention_quantile": 0.5}),  # [4.1]
    data={
        "oxford": _OXFORD,
        "paris": _PARIS,
        "oxford+1m": {**_OXFORD, **_MILLION},
        "paris+1m": {**_PARIS, **_MILLION},
    },
    of_paper=True,
)

# 1,614 photographs of Revisited Oxford of at most 512 pixels
PHOTOGRAPHS = {"oxford": {"data.name": "revisited", "data.root": "{data}/roxford5k_1614"}}
PHOTOGRAPHS_TITLE = {"oxford": "ROxford-1614"}
_RESNET50 = {"model.pretrained": "{weights}/resnet50_imagenet.npz"}
_RESNET18 = {"model.pretrained": "{weights}/resnet18_imagenet.npz"}
REAL_IMAGENET = Size(
    about="ImageNet ResNet-50 without any training, on ROxford-1614, a third of Revisited Oxford",
    evaluation=Base(
        local_to_global.get_config,
        "imagenet",
        {**_RESNET50, "extract.local_scales": SEVEN_SCALES},
    ),
    data=PHOTOGRAPHS,
    titles=PHOTOGRAPHS_TITLE,
)
REAL_THREE_SCALES = Size(
    about=f"{REAL_IMAGENET.about}; three scales",
    evaluation=Base(local_to_global.get_config, "imagenet", _RESNET50),
    data=PHOTOGRAPHS,
    titles=PHOTOGRAPHS_TITLE,
)
REAL_HEADS = Size(
    about="heads on a frozen ImageNet ResNet-18, trained on 954 photographs of 35 landmarks, on "
    "ROxford-1614, a third of Revisited Oxford",
    training=Base(
        landmarks.get_config,
        overrides={
            **_RESNET18,
            "data.root": "{data}/landmarks_35",
            "train.cache_features": True,  # of whole images, without crops
            "data.crop_area": (1.0, 1.0),
            "data.crop_aspect": (1.0, 1.0),
            "train.checkpoint_every": 400,
        },
    ),
    evaluation=Base(
        revisited.get_config,
        "trained",
        {"model.backbone": "resnet18", "extract.shape_step": 128},
    ),
    data=PHOTOGRAPHS,
    titles=PHOTOGRAPHS_TITLE,
)

_QUICK = {
    "data.image_size": 96,
    "data.workers": 0,
    "train.steps": 240,
    "train.warmup_steps": 24,
    "train.log_every": 60,
    "train.eval_every": 240,
    "train.checkpoint_every": 240,
    "train.tensorboard": False,
    "extract.local_scales": THREE_SCALES,
    "rerank.sp.short_list": 50,
    "rerank.sp.hypotheses": 200,
}
QUICK = Size(
    about="a tiny network, trained for a minute on rendered landmarks, evaluated on others",
    training=Base(quickstart.get_config, overrides=_QUICK),
    evaluation=Base(quickstart.get_config, overrides=_QUICK),
    data={"oxford": {}},
    seed_draws_data=True,
    titles={"oxford": "rendered"},
)


def with_local_to_global(base: Base) -> Base:
    """Returns the base with the search and re-ranking of configs/local_to_global.py."""
    fields = configuration.flatten(local_to_global.get_config(), ("search", "rerank"))
    return dataclasses.replace(base, overrides={**base.overrides, **fields})
