import concurrent.futures
import os
import signal
import sys
import time

import numpy as np
import pytest

from delg_jax.data import images
from delg_jax.errors import UserError
from delg_jax.serving.decoding import Decoder, TooLargeError
from tests.hostile import large_png, repeated_scans
from tests.search_page import jpeg


@pytest.fixture
def make():
    made = []

    def start(pixels=1_000_000, max_size=32, seconds=60.0, megabytes=100):
        made.append(Decoder(16, pixels, max_size, seconds, megabytes))
        return made[-1]

    yield start
    for decoder in made:
        decoder.close()


@pytest.mark.parametrize("box", [None, (3.2, 5, 41, 39)])
def test_pictures_are_those_that_the_library_decodes(make, box):
    decoder = make()
    for seed in range(3):
        upload = decoder.decode(jpeg(seed), box)
        expected = images.prepare(images.decode(jpeg(seed)), box, 32)
        np.testing.assert_array_equal(upload.loaded.image, expected.image)
        assert upload.loaded[1:] == expected[1:]
        assert upload.size == (40, 60)


def test_what_cannot_be_used_is_refused(make):
    decoder = make()
    for data, words in ((b"", "empty"), (b"<html>", "not an image"), (jpeg(0, 12, 12), "under 16")):
        with pytest.raises(images.BadImageError, match=words):
            decoder.decode(data, None)
    with pytest.raises(UserError, match="--box.*outside"):
        decoder.decode(jpeg(), (100, 100, 120, 120))
    with pytest.raises(TooLargeError, match="1000000"):
        decoder.decode(large_png(1200), None)
    assert decoder.decode(jpeg(), None).size == (40, 60)


def test_what_takes_too_long_ends_the_process_and_the_next_picture_has_another(make):
    decoder = make(pixels=100_000_000, seconds=0.1, megabytes=2000)
    decoder.start()
    start = time.monotonic()
    with pytest.raises(TooLargeError, match=r"0\.1 s"):
        decoder.decode(repeated_scans(4000, 80), None)
    assert time.monotonic() - start < 20
    assert decoder.decode(jpeg(), None).size == (40, 60)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have no such limit")
def test_what_takes_too_much_memory_is_refused(make):
    decoder = make(pixels=100_000_000, megabytes=60)
    with pytest.raises(TooLargeError, match="60 MB"):
        decoder.decode(large_png(5000), None)
    assert decoder.decode(jpeg(), None).size == (40, 60)


def test_a_process_that_was_killed_is_replaced(make):
    decoder = make()
    decoder.start()
    os.kill(decoder._process.pid, signal.SIGKILL)
    decoder._process.wait()
    assert decoder.decode(jpeg(), None).size == (40, 60)


def test_the_end_waits_for_no_picture(make):
    decoder = make(pixels=100_000_000, megabytes=2000)
    decoder.start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(decoder.decode, repeated_scans(4000, 80), None)
        time.sleep(0.2)
        decoder.close()
        with pytest.raises(TooLargeError):
            answer.result(20)
    with pytest.raises(TooLargeError, match="stopping"):
        decoder.decode(jpeg(), None)
