from types import SimpleNamespace

import numpy as np
from PIL import ImageColor

from configs import default
from delg_jax.reports import result_images
from delg_jax.retrieval.searcher import Hit
from tests.search_page import Source


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
