import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from delg_jax import workdir as outputs
from delg_jax.errors import UserError
from delg_jax.features import network as features_network
from delg_jax.features import stablehlo
from delg_jax.features.experiment import sections
from delg_jax.features.extractor import Extractor, feature_variables
from delg_jax.features.in_memory import extract_image
from delg_jax.features.pca import Pca
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.models.delg import build
from delg_jax.models.variables import digest
from tests.photographs import draw
from tests.tiny import random_variables, retrieval_config

CANVAS = (96, 128)
SCALES = (0.5, 1.0)

# A program that has only what the output needs; a package set to None cannot be imported.
PROGRAM = """
import sys
sys.modules["delg_jax"] = sys.modules["flax"] = None
import jax, numpy as np
exported = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
with np.load(sys.argv[2]) as inputs:
    np.savez(sys.argv[3], **exported.call(inputs["image"], inputs["size"]))
assert not [name for name in sys.modules if name.startswith(("delg_jax.", "flax."))]
"""


@pytest.fixture(scope="module", autouse=True)
def _variables():
    """No checkpoint: random variables, batch statistics included."""
    patch = pytest.MonkeyPatch()
    patch.setattr(features_network, "load_model", lambda config, workdir: network(config))
    yield
    patch.undo()


def network(config):
    module = build(config.model)
    return module, random_variables(module)


def settings(scales=SCALES, **model):
    config = retrieval_config("unused").copy_and_resolve_references().unlock()
    config.extract.local_encoding = "float32"  # the exported program does not round
    config.extract.local_scales = config.extract.global_scales = scales
    config.model.update(model)
    return config


def load(path):
    return jax.export.deserialize(bytearray(path.read_bytes()))


def place(picture, beyond=0):
    canvas = np.full((*CANVAS, 3), beyond, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas, np.array(picture.shape[:2], np.int32)


def jitted(module, variables, extract):
    """The extraction that a file would hold, without writing it."""
    return jax.jit(stablehlo.extraction(module, variables, ExtractionSettings.of(extract), CANVAS))


def assert_same(outputs, expected, atol=1e-5):
    np.testing.assert_allclose(
        outputs["global_descriptor"], expected.global_descriptor, atol=atol, rtol=0
    )
    for name in ("mask", "locations", "scales"):
        np.testing.assert_array_equal(outputs[name], getattr(expected.local, name))
    for name in ("scores", "descriptors"):
        found = outputs[name]
        np.testing.assert_allclose(found, getattr(expected.local, name), atol=atol, rtol=1e-5)
        assert found.dtype == np.float32


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The output of stride 16 with two scales."""
    folder = tmp_path_factory.mktemp("written")
    return stablehlo.export_model(settings(), folder, folder / "model.stablehlo", CANVAS)


@pytest.fixture(scope="module")
def exported(written):
    return load(written)


PICTURES = {"portrait": (90, 70), "whole canvas": CANVAS, "column": (40, 1)}


@pytest.mark.parametrize("size", PICTURES.values(), ids=PICTURES)
def test_equals_the_extractor(exported, size):
    config, picture = settings(), draw(0, *size) if min(size) > 4 else draw(0)[: size[0], : size[1]]
    expected = extract_image(*network(config), picture, config.extract)
    assert expected.local.mask.any()
    assert_same(exported.call(*place(picture)), expected)


@pytest.mark.parametrize(
    "convention",
    [
        pytest.param("torchvision", marks=pytest.mark.slow),
        pytest.param("keras", marks=pytest.mark.slow),
        pytest.param("slim", marks=pytest.mark.slow),
    ],
)
def test_equals_the_extractor_at_stride_32_in_every_convention(tmp_path, convention):
    config = settings((0.7071, 1.0), conv4_stride=32, convention=convention)
    config.extract.max_features = 40  # more than the smaller picture has positions
    path = stablehlo.export_model(config, tmp_path, tmp_path / "model", CANVAS)
    call = load(path).call
    for seed, size in enumerate([(61, 50), (40, 64)]):
        picture = draw(seed, *size)
        expected = extract_image(*network(config), picture, config.extract)
        assert_same(call(*place(picture)), expected)
        assert 0 < expected.local.mask.sum() < 40


def test_the_threshold_drops_the_same_features(exported):
    picture, config = draw(0, *PICTURES["portrait"]), settings((1.0,))
    outputs = exported.call(*place(picture))
    scores = np.asarray(outputs["scores"])[np.asarray(outputs["scales"]) == 1.0]
    config.extract.attention_threshold = float((scores[4] + scores[5]) / 2)
    model = network(config)
    expected = extract_image(*model, picture, config.extract)
    assert expected.local.mask.sum() == 5
    assert_same(jitted(*model, config.extract)(*place(picture)), expected)


def test_equal_scores_keep_the_order_of_the_extractor(tmp_path):
    config, flat = settings((1.0, 1.4142135)), np.full((96, 96, 3), 90, np.uint8)
    module, variables = network(config)
    # Every position scores the same: only the order of ties decides
    conv2 = variables["params"]["attend"]["conv2"]
    conv2["kernel"] = np.zeros_like(conv2["kernel"])
    function = jitted(module, variables, config.extract)
    expected = extract_image(module, variables, flat, config.extract)
    assert len(set(expected.local.scores)) == 1
    assert_same(function(*place(flat)), expected)


def test_pixels_beyond_the_picture_do_not_matter(exported):
    picture = draw(2, 50, 60)
    clean, dirty = (exported.call(*place(picture, beyond)) for beyond in (0, 200))
    for name in clean:
        np.testing.assert_array_equal(clean[name], dirty[name])


def test_another_program_needs_only_jax_and_numpy(written, exported, tmp_path):
    image, size = place(draw(3, 80, 100))
    np.savez(tmp_path / "in.npz", image=image, size=size)
    paths = [str(path) for path in (written, tmp_path / "in.npz", tmp_path / "out.npz")]
    command = [sys.executable, "-I", "-c", PROGRAM, *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = exported.call(image, size)
    with np.load(tmp_path / "out.npz") as outputs:
        assert sorted(outputs) == sorted(expected)
        for name in outputs:
            np.testing.assert_allclose(outputs[name], expected[name], atol=1e-6, rtol=0)


def test_one_file_serves_all_platforms(exported):
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_the_weights_are_inside_once(written):
    _, variables = network(settings())
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(feature_variables(variables)))
    assert size < written.stat().st_size < 1.2 * size


def test_the_file_does_not_tell_where_this_code_lies(written):
    """Paths of the machine, and the lines of callers, would make equal exports differ."""
    content = written.read_bytes()
    assert b"stablehlo.py" not in content
    assert b"site-packages" not in content


def test_the_description_says_what_is_inside(written, exported):
    described = json.loads((written.parent / "model.stablehlo.json").read_text())
    assert described["inputs"] == {
        "image": {"shape": [96, 128, 3], "dtype": "uint8"},
        "size": {"shape": [2], "dtype": "int32"},
    }
    outputs = exported.call(*place(draw(0)))
    assert described["outputs"] == {
        name: {"shape": list(value.shape), "dtype": value.dtype.name}
        for name, value in outputs.items()
    }
    assert described["local_scales"] == described["global_scales"] == list(SCALES)
    assert described["canvas"] == list(CANVAS)
    assert described["weights"] == digest(feature_variables(network(settings())[1]))
    assert described["config"]["model.conv4_stride"] == 16
    assert described["jax"] == jax.__version__
    assert described["calling_convention_version"] == exported.calling_convention_version


def test_without_local_head_there_is_the_global_descriptor_alone(tmp_path):
    config = settings((1.0,), local_head=False)
    config.extract.max_size = 60
    path = stablehlo.export_model(config, tmp_path, tmp_path / "model", platforms=("cpu", "cpu"))
    picture = draw(4, 40, 50)
    canvas = np.zeros((64, 64, 3), np.uint8)  # the limit, rounded up to the shape step
    canvas[:40, :50] = picture
    outputs = load(path).call(canvas, np.array([40, 50], np.int32))
    expected = extract_image(*network(config), picture, config.extract)
    assert list(outputs) == ["global_descriptor"]
    np.testing.assert_allclose(*outputs.values(), expected.global_descriptor, atol=1e-5)
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["local_scales"] == []
    assert described["platforms"] == ["cpu"]


def keep_pca(config, workdir, weights):
    folder = workdir / "features" / "database"
    outputs.Output.of(folder, config, sections(config), {"weights": weights}).claim()
    store = FeatureStore.prepare(folder, [], Layout())
    rng = np.random.default_rng(0)
    pca = Pca(rng.random(8, np.float32), rng.normal(size=(8, 3)).astype(np.float32))
    store.write_pca(pca)
    store.finish()
    return pca


def test_descriptors_go_through_the_projection_of_the_store(tmp_path):
    config = settings((1.0,))
    config.extract.pca_dim = 3
    module, variables = network(config)
    pca = keep_pca(config, tmp_path, digest(feature_variables(variables)))
    path = stablehlo.export_model(config, tmp_path, tmp_path / "model", CANVAS)
    picture = draw(5, 70, 90)
    asked = ExtractionSettings.of(config.extract)
    (expected,) = Extractor(module, variables, asked, pca)([picture])
    outputs = load(path).call(*place(picture))
    assert outputs["descriptors"].shape[1] == 3
    assert_same(outputs, expected)


def test_a_projection_must_exist_and_belong_to_the_weights(tmp_path):
    config = settings((1.0,))
    config.extract.pca_dim = 3
    with pytest.raises(UserError, match="delg extract"):
        stablehlo.export_model(config, tmp_path, tmp_path / "model", CANVAS)
    keep_pca(config, tmp_path, "of another network")
    with pytest.raises(UserError, match="weights: 'of another network'"):
        stablehlo.export_model(config, tmp_path, tmp_path / "model", CANVAS)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        ({"canvas": None}, "canvas"),
        ({"canvas": (0, 64)}, "canvas"),
        ({"platforms": ("cpu", "abacus")}, "platforms"),
        ({"platforms": ()}, "platforms"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, subject):
    config = settings()
    config.extract.max_size = 0
    with pytest.raises(UserError) as error:
        stablehlo.export_model(config, tmp_path, tmp_path / "m", **{"canvas": CANVAS, **arguments})
    assert error.value.subject == subject
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    config, path = settings((1.0,), local_head=False), tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match="--overwrite"):
        stablehlo.export_model(config, tmp_path, path, (64, 64))
    with pytest.raises(UserError, match="folder"):
        stablehlo.export_model(config, tmp_path, tmp_path, (64, 64), overwrite=True)
    assert path.read_bytes() == b"old"
    stablehlo.export_model(config, tmp_path, path, (64, 64), overwrite=True)
    assert load(path).in_avals[0].shape == (64, 64, 3)


def test_a_file_that_cannot_be_written_whole_is_not_there(monkeypatch, tmp_path):
    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stablehlo, "write_json", fail)
    with pytest.raises(UserError, match="No space left"):
        stablehlo.export_model(settings((1.0,)), tmp_path, tmp_path / "model", (64, 64))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(stablehlo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install flatbuffers"):
        stablehlo.export_model(settings(), tmp_path, tmp_path / "model", CANVAS)
