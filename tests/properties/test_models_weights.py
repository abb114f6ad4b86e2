import warnings

import pytest
from hypothesis import strategies as st

from delg_jax.errors import UserError
from delg_jax.models.weights.read import read_arrays
from tests.models.weights.test_read import ARRAYS, WRITERS
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import damaged


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """Bytes by ending, of formats whose packages are here."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for suffix, write in WRITERS:
        path = folder / f"weights{suffix}"
        try:
            write(path, ARRAYS)
        except pytest.skip.Exception:
            continue
        found[suffix] = path.read_bytes()
    found.pop(".index", None)  # a checkpoint of TensorFlow is several files
    return found


@cases(300)
def test_damaged_weights_are_arrays_or_refused(wholes, tmp_path, examples):
    def check(case):
        suffix, change = case
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(change.draw(damaged((wholes[suffix],))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries warn of what they then refuse
            found = outcome(lambda: read_arrays(str(path)))
        if isinstance(found, UserError):
            assert found.subject == "config.model.pretrained"
            return
        assert found
        assert all(array.dtype.kind in "fiub" for array in found.values())

    hold(examples, check, st.tuples(st.sampled_from(sorted(wholes)), st.data()))
