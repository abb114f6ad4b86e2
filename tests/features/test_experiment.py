import json
import re

import jax
import numpy as np
import pytest

import delg_jax.features.experiment as features_of_experiment
from delg_jax.errors import UserError
from delg_jax.features.experiment import extract, has_global, has_local
from delg_jax.features.extractor import Extractor
from delg_jax.features.image_sets import query_boxes
from delg_jax.models.delg import build
from delg_jax.training import optimizer
from delg_jax.training.checkpoints import FOLDER, Checkpoints
from delg_jax.training.optimizer import OptimizerSettings
from tests.folders import contents
from tests.photographs import make_revisited
from tests.tiny import random_variables, retrieval_config, training_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = retrieval_config(make_revisited(tmp_path_factory.mktemp("photographs")))
    config = config.copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    return config.lock()


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    extract(config, folder)
    return folder


def changed(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    config.extract.update(fields)
    return config.lock()


def test_the_workdir_gets_both_stores(config, workdir):
    extracted = extract(config, workdir)
    assert extracted.database.folder == workdir / "features" / "database"
    assert extracted.queries.folder == workdir / "features" / "queries"
    assert (len(extracted.database), len(extracted.queries)) == (8, 4)
    assert extracted.database.names == extracted.data.database.names
    assert extracted.database.is_whole()
    assert extracted.queries.is_whole()
    stored = json.loads((workdir / "features" / "database" / "config.json").read_text())
    assert stored["extra"] == {"weights": extracted.weights}


def test_complete_stores_are_not_extracted_again(config, workdir, monkeypatch):
    def refuse(self, images):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(Extractor, "__call__", refuse)
    before = contents(workdir)
    extract(config, workdir)
    assert contents(workdir) == before


def test_a_query_that_is_a_database_image_has_its_features(config, workdir):
    extracted = extract(config, workdir)
    database, queries = (
        store.global_descriptors() for store in (extracted.database, extracted.queries)
    )
    np.testing.assert_allclose((queries * database[::2]).sum(axis=1), 1, atol=1e-3)


def test_fields_of_later_stages_do_not_matter(config, workdir):
    config = config.copy_and_resolve_references()
    config.rerank.sp.short_list, config.search.threshold, config.data.max_skipped = 2, 0.1, 9
    assert len(extract(config, workdir).database) == 8


def test_other_settings_are_refused_unless_overwritten(config, workdir, tmp_path):
    other = changed(config, max_features=7)
    with pytest.raises(UserError, match=r"config\.extract\.max_features: 30 -> 7"):
        extract(other, workdir)
    extract(config, tmp_path)
    again = extract(other, tmp_path, overwrite=True)
    assert again.database.local_features(0).mask.shape[1] == 7


def test_other_weights_are_refused_with_their_digest(config, workdir, tmp_path):
    model = config.model.copy_and_resolve_references()
    variables = random_variables(build(model), seed=9)
    state = optimizer.create_state(
        variables, optimizer.create_optimizer(OptimizerSettings.of(training_config(tmp_path).train))
    )
    with Checkpoints(tmp_path / FOLDER, model, 1) as checkpoints:
        checkpoints.save(state)
    other = config.copy_and_resolve_references().unlock()
    other.model.checkpoint = str(tmp_path)
    with pytest.raises(UserError, match=r"weights: '\w{64}' -> '\w{64}'"):
        extract(other, workdir)


def test_queries_are_cropped_only_if_asked_for(config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        features_of_experiment, "extract_to_store", lambda loader, *_: seen.append(loader._boxes)
    )
    extract(config, tmp_path / "cropped")
    extract(changed(config, crop_queries=False), tmp_path / "whole")
    assert seen == [None, [(0, 0, 112, 96)] * 4, None, None]


def test_the_projection_is_fitted_once_on_the_database(config, tmp_path):
    projected = changed(config, pca_dim=3, pca_images=2)
    first = extract(projected, tmp_path)
    assert first.database.local_features(0).descriptors.shape[2] == 3
    assert first.queries.local_features(0).descriptors.shape[2] == 3
    kept = first.database.read_pca()
    before = first.database.local_features(0).descriptors
    first.database.discard("descriptors", range(first.database.layout.chunk_images))
    again = extract(projected, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.database.read_pca(), kept)
    np.testing.assert_array_equal(again.database.local_features(0).descriptors, before)


def test_a_projection_needs_enough_descriptors(config, tmp_path):
    with pytest.raises(UserError, match=r"config\.extract\.pca_dim = 9: .*=8"):
        extract(changed(config, pca_dim=9), tmp_path)


@pytest.mark.parametrize(
    ("local_head", "imported", "with_global", "with_local"),
    [
        (True, {}, True, True),
        (False, {}, True, False),
        (True, {"imported_global": "a.h5"}, True, False),
        (False, {"imported_local": "a.h5"}, False, True),
        (False, {"imported_local": "a", "imported_global": "b"}, True, True),
    ],
)
def test_what_an_experiment_has_depends_on_the_network_or_the_files(
    config, local_head, imported, with_global, with_local
):
    config = changed(config, **imported).unlock()
    config.model.local_head = local_head
    assert (has_global(config), has_local(config)) == (with_global, with_local)


def test_only_extracted_queries_are_cropped(config, workdir):
    data = extract(config, workdir).data
    assert query_boxes(config, data) == [(0, 0, 112, 96)] * 4
    assert query_boxes(changed(config, crop_queries=False), data) is None
    assert query_boxes(changed(config, imported_local="a.h5"), data) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float64"),
        ("local_encoding", "int4"),
        ("shape_step", 48),
        ("shape_step", -32),
        ("max_features", 0),
        ("batch_pixels", -1),
        ("chunk_images", 0),
        ("local_scales", ()),
        ("global_scales", (1.0, 0.0)),
        ("pca_dim", -1),
        ("pca_images", 0),
        ("max_size", -5),
    ],
)
def test_settings_that_cannot_be_are_refused(config, tmp_path, field, value):
    names = rf"config\.extract\.{field} = {re.escape(repr(value))}: "
    with pytest.raises(UserError, match=names):
        extract(changed(config, **{field: value}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_import_has_nothing_to_spread_over_workers(config, tmp_path):
    config = changed(config, imported_local="a.h5")
    with pytest.raises(UserError, match="--runner = 'DirectRunner'"):
        extract(config, tmp_path / "run", runner="DirectRunner")
    assert not (tmp_path / "run").exists()
