import pytest

from delg_jax.models.delg import build
from tests.tiny import random_variables, training_config
from tests.training.saved_runs import CLASSES, save


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = training_config(tmp_path_factory.mktemp("unused")).copy_and_resolve_references()
    config.model.num_classes = CLASSES
    return config


@pytest.fixture(scope="module")
def variables(config):
    return random_variables(build(config.model))


@pytest.fixture(scope="module")
def saved(config, variables, tmp_path_factory):
    return save(tmp_path_factory.mktemp("run"), config, variables, steps=(1, 2))
