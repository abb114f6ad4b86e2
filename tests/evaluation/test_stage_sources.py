"""What decides an evaluation, and that nothing made from anything else is used."""

import json
import shutil

import numpy as np
import pytest

from configs import default
from delg_jax import configuration
from delg_jax import workdir as artefacts
from delg_jax.evaluation import evaluate
from delg_jax.evaluation.evaluate import decided_by
from tests.photographs import make_revisited
from tests.tiny import retrieval_config

PLACES = 4

# What decides no ranking. Of weights, images, ground truth and imported files, digests decide
_UNDECIDED = {
    *(f"model.{name}" for name in ("pretrained", "pretrained_source", "pretrained_mapping")),
    *("model.checkpoint", "data.root", "data.ground_truth", "data.distractors"),
    *("extract.imported_local", "extract.imported_global"),
    # Of training alone, which changes weights
    *("data.split_seed", "data.validation_share", "data.image_size", "data.crop_area"),
    *("data.crop_aspect", "data.flip", "data.reduced_decode"),
    *(path for path in configuration.flatten(default.get_config()) if path.startswith("train.")),
    # Place, speed, memory, and what is tolerated
    *("data.tfds_dir", "data.beam_options", "data.workers", "data.memory_megabytes"),
    *("data.max_skipped", "extract.batch_pixels"),
    *("search.global_block", "search.local_block", "search.query_block"),
    *("rerank.sp.pair_block", "rerank.mds.query_block"),
}


def other_value(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple | list):
        return (*value, value[0])
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("engine", ["exact", "cann", "ivf"])
def test_every_field_decides_or_is_known_not_to(tmp_path, engine):
    config = default.get_config()
    config.search.engine = engine
    artefacts.claim(tmp_path, config, decided_by(config))
    idle = {f"search.{name}." for name in ("cann", "ivf") if name != engine}
    undecided = set()
    for path, value in configuration.flatten(config).items():
        other = config.copy_and_resolve_references()
        section, _, name = path.rpartition(".")
        tree = other
        for part in filter(None, section.split(".")):
            tree = tree[part]
        tree[name] = other_value(value)
        if artefacts.is_of(tmp_path, other, decided_by(other)):
            undecided.add(path)
    assert {path for path in undecided if not path.startswith(tuple(idle))} == _UNDECIDED


@pytest.mark.parametrize(
    ("engine", "method"),
    [("ivf", "local"), ("cann", "local"), ("exact", "local+diffusion"), ("exact", "local+mds")],
)
@pytest.mark.parametrize("change", ["order", "pictures"])
def test_nothing_stale_is_used(tmp_path, engine, method, change):
    data = make_revisited(tmp_path / "data", PLACES)
    changes = {"eval.methods": (method,), "search.engine": engine, "search.ivf.count": 8}
    config = configuration.override(retrieval_config(data), changes | {"search.cann.grids": 2})
    evaluate(config, tmp_path / "run")
    before = dict(np.load(tmp_path / "run" / "rankings.npz"))
    if change == "order":
        path = data / "gnd_drawn.json"
        content = json.loads(path.read_text())
        last = len(content["imlist"]) - 1
        content["imlist"].reverse()
        for entry in content["gnd"]:
            for name in ("easy", "hard", "junk"):
                entry[name] = sorted(last - image for image in entry[name])
        path.write_text(json.dumps(content))
        result = evaluate(config, tmp_path / "run", overwrite=True)
    else:
        shutil.rmtree(tmp_path / "run" / "features")
        pictures = sorted((data / "jpg").glob("place*"))
        contents = [picture.read_bytes() for picture in pictures]
        for picture, content in zip(pictures, [*contents[3:], *contents[:3]], strict=True):
            picture.write_bytes(content)
        result = evaluate(config, tmp_path / "run")
    fresh = evaluate(config, tmp_path / "fresh")
    for name in ("methods", "average_precisions"):
        assert result[name] == fresh[name]
    found, expected = (np.load(tmp_path / name / "rankings.npz") for name in ("run", "fresh"))
    np.testing.assert_array_equal(found[method], expected[method])
    assert not np.array_equal(before[method], found[method])
