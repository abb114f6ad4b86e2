import numpy as np
import pytest
from PIL import Image

from delg_jax.errors import UserError
from delg_jax.reports import matches

PICTURES = np.full((40, 60, 3), 10, np.uint8), np.full((50, 30, 3), 20, np.uint8)
LOCATIONS = np.array([[20.0, 5], [30, 10]]), np.array([[20.0, 25], [3, 4]])


def test_pictures_stand_side_by_side():
    drawing = np.asarray(matches.draw(PICTURES, (np.zeros((0, 2)),) * 2, np.zeros(0, bool)))
    assert drawing.shape == (50, 60 + 8 + 30, 3)
    assert (drawing[:40, :60] == 10).all()
    assert (drawing[:, 68:] == 20).all()
    assert (drawing[40:, :60] == 255).all()


def test_an_inlier_is_a_line_and_another_match_two_dots():
    drawing = np.asarray(matches.draw(PICTURES, LOCATIONS, np.array([True, False]))).astype(int)
    line = drawing[20, 5 : 68 + 25]
    assert (line == line[0]).all()
    assert np.ptp(line[0]) > 100  # a strong colour
    for y, x in ((30, 10), (3, 68 + 4)):
        assert drawing[y, x].tolist() == [150, 150, 150]
    assert (drawing[30, 14:60] == 10).all()


def test_lines_of_different_heights_differ_in_colour():
    both = np.asarray(matches.draw(PICTURES, LOCATIONS, np.ones(2, bool)))
    assert (both[20, 5] != both[30, 10]).any()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "deep/a.JPEG"])
def test_the_ending_decides_the_format(tmp_path, name):
    path = matches.check_path("--output", tmp_path / name)
    matches.save(Image.new("RGB", (20, 10)), path)
    with Image.open(path) as found:
        assert found.format == ("PNG" if name == "a.png" else "JPEG")
        assert found.size == (20, 10)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_unwritable_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--output = 'a\.tiff': "):
        matches.check_path("--output", "a.tiff")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.png'"):
        matches.save(Image.new("RGB", (2, 2)), tmp_path / "file" / "a.png")
