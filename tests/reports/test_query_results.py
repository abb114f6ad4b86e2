import numpy as np

from delg_jax.reports.query_results import IGNORED, RIGHT, UNKNOWN, WRONG, top_images

ENTRY = {"easy": [4], "hard": [2], "junk": [7]}


def order(*images):
    return np.array(images, np.int32)


def test_kinds_ranks_and_moves_by_hand():
    first = order(0, 7, 1, 2, 4, 3)
    found = top_images(order(4, 7, 2, 0, 1, 3), first, ENTRY, "medium", 4)
    # image 7 takes no rank in either list
    assert found == [(4, RIGHT, 1, 4), (7, IGNORED, 0, 0), (2, RIGHT, 2, 3), (0, WRONG, 3, 1)]


def test_the_protocol_decides_what_is_ignored():
    found = top_images(order(4, 2, 7), None, ENTRY, "hard", 10)
    assert found == [(4, IGNORED, 0, 0), (2, RIGHT, 1, 0), (7, IGNORED, 0, 0)]


def test_without_ground_truth_nothing_is_known():
    found = top_images(order(3, -1, 1), order(1, 3), None, "easy", 2)
    assert found == [(3, UNKNOWN, 1, 2), (1, UNKNOWN, 2, 1)]
    assert top_images(order(), None, ENTRY, "easy", 5) == []
    assert top_images(order(-1, -1), None, ENTRY, "easy", 5) == []


def test_an_image_that_the_first_stage_left_out_has_no_rank_before():
    assert top_images(order(5), order(1, -1), ENTRY, "easy", 5) == [(5, WRONG, 1, 0)]
