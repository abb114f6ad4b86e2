"""Weights without any training: the free default beside ImageNet ResNet-50, by method.

    python -m experiments.tables.pretrained_weights --size=real --data=DIR --weights=DIR \
        --workdir=runs/weights

EfficientNet-Lite0 and 2 come by pip, ResNet-50 from --weights. Photographs at their original size,
one scale. Writes pretrained_weights_real.json and .md into --results.
"""

import sys

from configs import local_to_global
from delg_jax.cli.main import run_experiment
from experiments.framework import presets
from experiments.framework.experiment import (
    Base,
    Claim,
    Experiment,
    Row,
    Setting,
    Size,
    map_columns,
)
from experiments.framework.program import program

_METHODS = tuple(local_to_global.get_config().eval.methods)
_RESNET50 = "resnet50"


def _lite(number: int) -> dict[str, str]:
    name = f"efficientnet_lite{number}"
    network = {"backbone": name, "convention": "efficientnet", "pretrained": name}
    fields = network | {"pretrained_source": "efficientnet"}
    return {f"model.{field}": value for field, value in fields.items()}


_WEIGHTS = {
    _RESNET50: {"model.pretrained": "{weights}/resnet50_imagenet.npz"},
    "efficientnet_lite0": _lite(0),
    "efficientnet_lite2": _lite(2),
}
_SETTINGS = {
    name: Setting(name, _METHODS, overrides=overrides) for name, overrides in _WEIGHTS.items()
}

EXPERIMENT = Experiment(
    name="pretrained_weights",
    place="Weights without training: retrieval, mAP in percent",
    columns=map_columns("oxford", "ROxf", ("easy", "medium", "hard")),
    rows=tuple(
        Row(f"{name}: {method}", (setting,), method)
        for name, setting in _SETTINGS.items()
        for method in _METHODS
    ),
    sizes={
        "real": Size(
            about="ImageNet weights without any training, one scale, on ROxford-1614, a third of "
            "Revisited Oxford",
            evaluation=Base(
                local_to_global.get_config,
                "imagenet",
                {"extract.local_scales": (1.0,), "extract.global_scales": (1.0,)},
            ),
            data=presets.PHOTOGRAPHS,
            titles=presets.PHOTOGRAPHS_TITLE,
        )
    },
    claims=tuple(
        Claim(f"{name}: {method}", f"{_RESNET50}: {method}")
        for name in _WEIGHTS
        if name != _RESNET50
        for method in _METHODS
    ),
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
