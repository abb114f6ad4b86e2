import pickle
import time

import numpy as np
import pytest

from delg_jax.data import pickles


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 2], ">i8"),
        np.array(["ä", "b"]),
        np.array([True, False]),
        np.array([1, "a", None], object),
        np.float32(0.5),
        np.int64(3),
        np.zeros((0, 4)),
    ],
)
def test_arrays_and_scalars_come_back_as_lists(protocol, array):
    assert pickles.read(pickle.dumps({"a": [array]}, protocol)) == {"a": [array.tolist()]}


@pytest.mark.parametrize(
    "name", ["numpy._core.multiarray\nfromstring", "numpy\nload", "numpy.core.numeric\nevalf"]
)
def test_no_other_name_of_numpy_is_known(name):
    with pytest.raises(pickle.UnpicklingError, match=name.replace("\n", r"\.")):
        pickles.read(f"c{name}\n.".encode())


def test_bytes_of_python_3_are_text():
    assert pickles.read(pickle.dumps([b"abc", b"\xff"], 2)) == ["abc", "\xff"]
    with pytest.raises(pickle.UnpicklingError, match="latin1"):
        pickles.read(b"c_codecs\nencode\n(Va\nVrot13\ntR.")


def test_parts_that_repeat_without_end_are_refused():
    once = [1, 2]
    few = [once] * 5
    assert pickles.read(pickle.dumps(few)) == few
    bomb: list = [1]
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(pickle.UnpicklingError, match="repeats"):
        pickles.read(pickle.dumps(bomb))


def test_a_pickle_of_millions_of_operations_is_read_in_linear_time():
    def seconds(count):
        data = b"\x80\x02]" + b"(K\x01e" * count + b"."
        start = time.process_time()
        assert len(pickles.read(data)) == count
        return time.process_time() - start

    assert seconds(80_000) < 20 * seconds(20_000) + 1
