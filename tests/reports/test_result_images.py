from types import SimpleNamespace

import numpy as np
from PIL import ImageColor

from configs import default
from delg_jax.reports import result_images
from delg_jax.reports.result_images import Tile
from delg_jax.retrieval.searcher import Hit
from tests.search_page import Source


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


def test_each_search_has_a_row_with_the_box_on_its_query():
    searcher = SimpleNamespace(source=Source(), config=default.get_config())
    picture = np.full((200, 200, 3), 255, np.uint8)
    hits = [Hit(0, "a", 0.5)]
    results = [("first", picture, hits), ("second", picture, hits * 3)]
    plain, boxed = (
        np.asarray(result_images.draw_searches(results, box, searcher))
        for box in (None, (-20.0, 50.2, 150.0, 900.0))
    )
    assert plain.shape == boxed.shape
    changed = np.argwhere((plain != boxed).any(axis=2))
    assert changed[:, 1].max() < 130  # the queries stand on the left
    blue = np.array(ImageColor.getrgb(result_images.FRAMES["query"]))
    assert (np.abs(boxed[tuple(changed.T)].astype(int) - blue[None, :]).max(axis=1) < 40).any()
