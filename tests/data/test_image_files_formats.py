import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from delg_jax.data import image_files
from delg_jax.data.images import decode


@pytest.mark.parametrize("form", sorted(image_files.ENDINGS))
def test_what_is_taken_by_its_ending_is_decoded(form):
    if form not in image_files.FORMATS:
        assert not set(image_files.ENDINGS[form]) & set(image_files.SUFFIXES)
        assert set(image_files.ENDINGS[form]) <= set(image_files.UNDECODABLE)
        return
    assert set(image_files.ENDINGS[form]) <= set(image_files.SUFFIXES)
    data = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 90, 40)).save(data, form)
    found = decode(data.getvalue())
    assert found.shape == (24, 32, 3)
    np.testing.assert_allclose(found[12, 16].astype(int), [200, 90, 40], atol=8)


def test_every_ending_of_a_format_that_pillow_knows_is_taken():
    Image.init()
    known = {
        end for end, form in Image.registered_extensions().items() if form in image_files.FORMATS
    }
    assert known <= set(image_files.SUFFIXES)


def test_a_format_that_pillow_was_built_without_is_not_taken():
    program = (
        "from PIL import features\n"
        "check = features.check\n"
        "features.check = lambda name: name != 'avif' and check(name)\n"
        "from delg_jax.data import image_files as formats\n"
        "print('AVIF' in formats.FORMATS, '.avif' in formats.SUFFIXES)\n"
        "print(formats.UNDECODABLE['.avif'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
    )
    assert run.stdout == "False False\nthis Pillow was built without avif\n"
