import numpy as np
import pytest

from delg_jax.search.global_search import StreamedSearch, search


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def reference(queries, database):
    products = queries.astype(np.float64) @ database.astype(np.float64).T
    order = np.argsort(-products, axis=1, kind="stable")
    return np.take_along_axis(products, order, axis=1), order


def test_by_hand():
    database = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    similarities, indices = search(np.array([[0, 1]], np.float32), database, top_k=3)
    assert indices.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(similarities, [[1, 0.8, 0]], atol=1e-6)


# Few sizes of blocks, below and above that of the lists: each pair of sizes compiles
@pytest.mark.parametrize(
    ("block", "top_k"),
    [(4, 1), (1000, 1), *((block, top_k) for block in (1, 4, 7, 29, 1000) for top_k in (5, 100))],
)
def test_equals_sorting_for_any_block(rng, block, top_k):
    queries, database = unit(rng, 3, 6), unit(rng, 29, 6)
    expected_similarities, expected = reference(queries, database)
    similarities, indices = search(queries, database, top_k, block)
    np.testing.assert_array_equal(indices, expected[:, :top_k])
    np.testing.assert_allclose(similarities, expected_similarities[:, :top_k], atol=1e-6)
    assert similarities.dtype == np.float32
    assert indices.dtype == np.int32
    assert indices.shape == (3, min(top_k, 29))


@pytest.mark.parametrize("block", [1, 2, 3, 8])
def test_ties_go_to_the_lower_index_within_and_across_blocks(block):
    database = np.array([[0.5], [1], [0.5], [1], [1], [0.5], [1]], np.float32)
    _, indices = search(np.ones((1, 1), np.float32), database, 6, block)
    assert indices.tolist() == [[1, 3, 4, 6, 0, 2]]


def test_padding_of_the_last_block_does_not_beat_negative_similarities():
    database = -np.ones((3, 1), np.float32)
    similarities, indices = search(np.ones((1, 1), np.float32), database, 3, block=2)
    assert indices.tolist() == [[0, 1, 2]]
    assert similarities.tolist() == [[-1, -1, -1]]


def test_reads_a_memory_map_of_half_floats(rng, tmp_path):
    database = unit(rng, 11, 4).astype(np.float16)
    path = tmp_path / "database.npy"
    np.save(path, database)
    queries = unit(rng, 2, 4)
    _, indices = search(queries, np.load(path, mmap_mode="r"), 11, block=4)
    np.testing.assert_array_equal(indices, reference(queries, database)[1])


def test_renaming_the_images_renames_the_result(rng):
    queries, database, names = unit(rng, 4, 5), unit(rng, 17, 5), rng.permutation(17)
    _, indices = search(queries, database, 9, block=5)
    _, renamed = search(queries, database[names], 9, block=5)
    np.testing.assert_array_equal(names[renamed], indices)


def test_no_query_and_no_image():
    empty = np.zeros((0, 3), np.float32)
    some = np.ones((2, 3), np.float32)
    assert search(empty, some, 2)[1].shape == (0, 2)
    assert search(some, empty, 2)[1].shape == (2, 0)


def test_misuse_is_named():
    some = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"`top_k` \(=0\)"):
        search(some, some, 0)
    with pytest.raises(ValueError, match=r"`database` \(D=2\).*`queries` \(D=3\)"):
        search(some, some[:, :2], 1)


@pytest.mark.parametrize(
    ("block", "top_k"),
    [(3, 1), (100, 7), *((block, top_k) for block in (1, 3, 7, 100) for top_k in (4, 9))],
)
def test_absent_images_come_last_in_order(rng, block, top_k):
    queries, database = unit(rng, 3, 4), unit(rng, 9, 4)
    present = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0], bool)
    database[~present] = 0
    similarities, indices = search(queries, database, top_k, block, present)
    _, order = reference(queries, database[present])
    expected = np.concatenate([np.flatnonzero(present)[order], [[1, 4, 8]] * 3], axis=1)
    np.testing.assert_array_equal(indices, expected[:, :top_k])
    assert (np.isneginf(similarities) == ~present[indices]).all()


def test_the_mask_is_of_all_images(rng):
    with pytest.raises(ValueError, match=r"`present` \(shape \(3,\)\) .*\(9,\)"):
        search(unit(rng, 1, 4), unit(rng, 9, 4), 2, present=np.ones(3, bool))
    nothing = search(unit(rng, 1, 4), np.zeros((3, 4), np.float32), 2, present=np.zeros(3, bool))
    assert (nothing[0].tolist(), nothing[1].tolist()) == ([[-np.inf] * 2], [[0, 1]])


@pytest.mark.parametrize("sizes", [(17,), (1, 9, 0, 7), (5, 5, 7)])
def test_a_database_in_parts_gives_the_lists_of_the_whole(rng, sizes):
    queries = rng.normal(size=(3, 4)).astype(np.float32)
    database = rng.integers(-2, 3, size=(17, 4)).astype(np.float32)  # with equal similarities
    present = rng.random(17) < 0.7
    stream = StreamedSearch(queries, 20, block=4)
    start = 0
    for size in sizes:
        stream.add(database[start : start + size], present[start : start + size])
        start += size
    similarities, indices = stream.lists()
    wanted = search(queries, database, 20, present=present)
    held = wanted[0] > -np.inf
    assert (similarities[:, :17] > -np.inf).tolist() == held.tolist()
    np.testing.assert_array_equal(indices[:, :17][held], wanted[1][held])
    np.testing.assert_allclose(similarities[:, :17][held], wanted[0][held], rtol=1e-6)
    assert (indices[:, held[0].sum() :] == -1).all()
    again = StreamedSearch(queries, 20, block=4)
    again.restore(similarities, indices, 17)
    again.add(database[:0])
    np.testing.assert_array_equal(again.lists()[1], indices)
