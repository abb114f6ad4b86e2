import shutil

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.training.checkpoints import FOLDER
from delg_jax.training.trained_network import attention_thresholds, load_model
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import damaged
from tests.tiny import random_variables, training_config
from tests.training.saved_runs import save


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    config = training_config(tmp_path_factory.mktemp("unused")).copy_and_resolve_references()
    config.model.num_classes = 4
    folder = save(tmp_path_factory.mktemp("run"), config, random_variables(build(config.model)))
    return config, folder, load_model(config, folder)[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax's loops
@cases(60)
def test_a_damaged_checkpoint_is_the_same_or_refused(whole, tmp_path, examples):
    config, folder, variables = whole
    step = folder / FOLDER / "3"
    files = sorted(path.relative_to(folder) for path in step.rglob("*") if path.is_file())

    def check(case):
        number, change, gone = case
        copy = tmp_path / "run"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        path = copy / files[number % len(files)]
        if gone:
            path.unlink()
        else:
            path.write_bytes(change.draw(damaged((path.read_bytes(),))))
        outcome(lambda: attention_thresholds(copy))
        found = outcome(lambda: load_model(config, copy)[1])
        if isinstance(found, UserError):
            assert found.subject == "config.model.checkpoint"
            return
        jax.tree.map(np.testing.assert_array_equal, found, variables)

    hold(examples, check, st.tuples(st.integers(0, 99), st.data(), st.booleans()))
