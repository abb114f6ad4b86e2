"""R101-DELG on Google Landmarks, the paper's recipe (section 4.1, Table 3).

    delg train --config=configs/delg_r101_gld.py --config.data.root=GLD \
        --config.model.pretrained=resnet_v1_101.npz --workdir=runs/delg_r101

Like configs/delg_r50_gld.py, with the deeper backbone. The paper reports mAP Medium / Hard on
Revisited Oxford of 73.2 / 51.2 with global descriptors and 78.5 / 58.6 after re-ranking.
"""

import ml_collections

from configs import delg_r50_gld


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe; `argument` is that of configs/delg_r50_gld.py."""
    config = delg_r50_gld.get_config(argument)
    config.model.backbone = "resnet101"
    return config
