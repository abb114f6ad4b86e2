"""Every file in configs: it loads, describes a network, and has the fields of the default."""

import ast
import io
import tokenize
from pathlib import Path

import numpy as np
import pytest

from configs import default, revisited
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2
from delg_jax.models.delg import build
from delg_jax.rerank import spatial_verification
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.training.train import length_of_recipe

FOLDER = Path(default.__file__).parent
FILES = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py")
VARIANTS = ("real", "trained", "gem")


def load(file, argument=""):
    return configuration.load(str(FOLDER / file), argument)


@pytest.mark.parametrize("file", FILES)
def test_a_config_changes_values_and_adds_no_field(file):
    ours, fields = configuration.flatten(load(file)), configuration.flatten(default.get_config())
    assert set(ours) == set(fields)
    for name, value in ours.items():
        assert type(value) is type(fields[name]), name


@pytest.mark.parametrize("file", FILES)
def test_a_config_describes_a_network(file):
    config = load(file)
    assert build(config.model).backbone == config.model.backbone


@pytest.mark.parametrize("file", FILES)
def test_an_unknown_argument_is_refused(file):
    with pytest.raises(UserError, match="--config argument = 'no_such_name'"):
        load(file, "no_such_name=1")


@pytest.mark.parametrize("file", FILES)
def test_a_config_has_a_docstring(file):
    text = (FOLDER / file).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_revisited(variant):
    config = load("revisited.py", variant)
    assert set(configuration.flatten(config)) == set(configuration.flatten(default.get_config()))
    assert f"\n    {variant} " in revisited.__doc__
    network = build(config.model)
    assert (network.convention, network.conv4_stride) == ("torchvision", 16)
    assert config.data.name == "revisited"
    assert config.extract.max_size == 0
    assert config.model.local_head == (variant != "gem")
    assert all(m == "global" or config.model.local_head for m in config.eval.methods)


def test_revisited_without_argument_is_the_paper():
    config, paper = load("revisited.py"), default.get_config()
    assert configuration.flatten(config, ("model", "extract")) == configuration.flatten(
        paper, ("model", "extract")
    )


@pytest.mark.parametrize("argument", ["real,gem", "real=1,trained=1,gem=1"])
def test_variants_of_revisited_exclude_each_other(argument):
    with pytest.raises(UserError, match="real"):
        load("revisited.py", argument)
    assert load("revisited.py", "real,gem=false").model.attention == "norm"


def test_smoke_shrinks_the_quickstart_and_changes_no_network():
    smoke, whole = load("quickstart.py", "smoke"), load("quickstart.py")
    assert smoke.model == whole.model
    assert smoke.train.steps < 10 < whole.train.steps
    assert smoke.data.image_size < whole.data.image_size


@pytest.mark.parametrize("name", ["delg_r50_gld", "delg_r101_gld"])
@pytest.mark.parametrize("devices", [1, 8, 16, 21, 32, 256])
def test_the_recipe_sees_the_images_of_the_paper_on_any_number_of_devices(name, devices):
    recipe = length_of_recipe(f"{name}:devices={devices}")
    assert recipe.batch_size == 16 * devices
    assert recipe.images_seen == pytest.approx(24e6, rel=1e-4)
    assert recipe.train_images == 960_000
    assert f"{recipe.epochs:.1f}" == "25.0"


def test_the_default_recipe_is_for_eight_devices():
    assert load("delg_r50_gld.py") == load("delg_r50_gld.py", "devices=8")
    assert str(length_of_recipe("delg_r50_gld")) == (
        "24,000,000 images in 187,500 steps of 128: 25.0 epochs of 960,000 images"
    )
    with pytest.raises(UserError, match="devices = 0: "):
        load("delg_r50_gld.py", "devices=0")


@pytest.mark.parametrize(("devices", "rate"), [(32, 0.01), (16, 0.01), (8, 0.005), (1, 0.000625)])
def test_devices_scale_the_learning_rate(devices, rate):
    train = load("delg_r50_gld.py", f"devices={devices}").train
    assert train.learning_rate == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("argument", "batch", "steps", "rate"),
    [("tf2", 256, 500_000, 0.01), ("tf2,devices=4", 128, 1_000_000, 0.005)],
)
def test_the_recipe_of_the_official_code(argument, batch, steps, rate):
    config = load("delg_r50_gld.py", argument)
    assert (config.train.batch_size, config.train.steps) == (batch, steps)
    assert config.train.learning_rate == pytest.approx(rate, rel=1e-12)
    assert (config.data.name, config.data.image_size) == ("gldv2_clean", 321)
    assert (config.model.convention, config.train.arcface_scale_learned) == ("keras", False)
    recipe = length_of_recipe(f"delg_r50_gld:{argument}")
    assert recipe.images_seen == 128_000_000
    assert recipe.epochs == pytest.approx(128e6 / 1_264_376)


def test_images_seen_need_a_published_data_set():
    with pytest.raises(UserError, match="config.data.name = 'synthetic'"):
        length_of_recipe("quickstart")


def test_recipes_differ_only_in_the_backbone():
    small, large = (configuration.flatten(load(f"delg_r{n}_gld.py")) for n in (50, 101))
    difference = configuration.difference(small, large)
    assert difference == ["config.model.backbone: 'resnet50' -> 'resnet101'"]


def test_revisited_evaluates_what_landmarks_trains():
    trained, evaluated = load("landmarks.py"), load("revisited.py", "trained")
    assert trained.model == evaluated.model


def test_trees_do_not_share_state():
    with default.get_config().unlocked() as config:
        config.model.backbone = "changed"
    assert default.get_config().model.backbone == "resnet50"


def test_every_field_of_the_default_has_a_comment_on_its_line():
    text = (FOLDER / "default.py").read_text(encoding="utf-8")
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    fields = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Attribute)
        and not isinstance(node.value, ast.Call)
    ]
    assert len(fields) == len(configuration.flatten(default.get_config()))
    bare = [ast.unparse(node.targets[0]) for node in fields if node.lineno not in comments]
    assert bare == []


def test_the_recognition_baseline_of_2020_by_hand():
    """Two classes among the first ten: the one of fewer, better verified images wins.

    The image of class 7 has 35 inliers and a cosine of 0.6: 35 / 70 + 0.6 = 1.1. Four of class 3
    have 0.3 each and no inliers. That of class 9 has 140 inliers, which count as 70: 1.0 + 0.2. Of
    the five best, 1.2 of class 9 beats 1.1 of class 7 and 0.9 of class 3, of which three count.
    """
    config = load("recognition_2020.py")
    settings = RerankSettings.of(config.rerank).sp
    assert (settings.model, settings.inlier_threshold, settings.short_list) == ("homography", 4, 10)
    assert (settings.max_distance, settings.hypotheses) == (0.9, 1000)
    labels = np.array([[3, 3, 3, 3, 7, 9, 5, 5, 5, 5]])
    similarities = np.array([[0.3, 0.3, 0.3, 0.3, 0.6, 0.2, 0.1, 0.1, 0.1, 0.1]])
    inliers = np.array([[0, 0, 0, 0, 35, 140, 0, 0, 0, 0]])
    top = config.eval.recognition_top
    classes, scores = gldv2.combine(labels, similarities, inliers, top)
    assert classes.tolist() == [9]
    np.testing.assert_allclose(scores, [1.2])
    inliers[0, 5] = 0  # now the best five are 7 and the four of class 3
    classes, scores = gldv2.combine(labels, similarities, inliers, top)
    assert classes.tolist() == [3]
    np.testing.assert_allclose(scores, [1.2])
    # A candidate of 70 inliers and cosine 0 is above one of 69 and cosine 0, not below 71's
    order = spatial_verification.rerank(
        np.arange(3), np.zeros(3), np.array([69, 70, 71]), np.zeros(0, int), 3, settings.score
    )
    assert order.tolist() == [1, 2, 0]
