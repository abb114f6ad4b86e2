import numpy as np
from PIL import ImageColor

from delg_jax.reports import result_images
from delg_jax.reports.result_images import Tile


def test_frames_have_the_colours_of_their_kinds():
    black = np.zeros((10, 20, 3), np.uint8)
    kinds = list(result_images.FRAMES)
    drawing = result_images.draw([("first", [Tile(black, kind) for kind in kinds]), ("second", [])])
    colours = {colour for _, colour in drawing.getcolors(1 << 16)}
    assert {ImageColor.getrgb(colour) for colour in result_images.FRAMES.values()} <= colours


def test_mark_changes_its_tile_alone():
    black = np.zeros((30, 30, 3), np.uint8)
    plain, marked = (
        np.asarray(result_images.draw([("", [Tile(black, "query"), Tile(black, "correct", mark)])]))
        for mark in (False, True)
    )
    columns = np.flatnonzero((plain != marked).any(axis=(0, 2)))
    assert columns.min() > plain.shape[1] // 2
