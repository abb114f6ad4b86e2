"""What `config.search` makes of the engines; the graph is in `test_stage`."""

import numpy as np
import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import encodings
from delg_jax.search import asmk_store, engine_choice, engines, index_store
from delg_jax.search.cann import GridSettings
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.index_store import Place
from tests.search.test_ivf import halves


@pytest.fixture
def search():
    search = default.get_config().search
    search.kernel, search.threshold, search.local_block = "power", 0.1, 4
    search.cann.grids, search.cann.axes, search.cann.approximation = 2, 3, 2.0
    search.ivf.count = search.ivf.probes = 6
    search.asmk.words = search.asmk.assignments = 6
    return search


def engine(database, search, place=None):
    return engine_choice.engine(database, SearchSettings.of(search), place)


@pytest.fixture
def database(rng):
    descriptors, mask = halves(rng, 9, 5)
    empty = np.zeros((9, 5), np.float32)
    return LocalFeatures(np.zeros((9, 5, 2), np.float32), empty, empty, descriptors, mask)


def test_the_defaults_are_those_of_the_original():
    search = default.get_config().search
    SearchSettings.of(search)
    assert GridSettings.from_scale(**search.cann) == GridSettings()
    assert len(GridSettings.from_scale(**search.cann).radii()) == 36


def test_the_engine_is_chosen(search, database, tmp_path):
    queries = database.descriptors[:3], database.mask[:3]
    found = {}
    for search.engine in engines.ENGINES:
        folder = tmp_path / search.engine
        found[search.engine] = engine(database, search)(*queries)
        kept = engine(database, search, Place(folder, "digest"))(*queries)
        np.testing.assert_array_equal(kept, found[search.engine])
        assert folder.exists() == (search.engine != "exact")
    np.testing.assert_allclose(found["ivf"], found["exact"], atol=2e-6)
    assert not np.allclose(found["cann"], found["exact"], atol=0.01)


@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_an_index_is_rebuilt_only_for_other_settings(search, database, tmp_path, name):
    search.engine, search[name].seed = name, 3
    place = Place(tmp_path / "index", "digest")
    engine(database, search, place)
    before = (tmp_path / "index").stat().st_ino
    engine(database, search, place)
    assert (tmp_path / "index").stat().st_ino == before
    search[name].seed = 4
    engine(database, search, place)
    load = asmk_store.load if name == "asmk" else index_store.load
    assert load(tmp_path / "index").settings.seed == 4


@pytest.mark.parametrize("hamming", ["popcount", "products"])
def test_packed_codes_are_searched(search, database, hamming):
    codes = encodings.encode(database.descriptors, "sign")
    search.hamming = hamming
    packed = database._replace(descriptors=codes.values)
    plain = database._replace(descriptors=encodings.decode(codes, "sign"))
    found = engine(packed, search)(packed.descriptors, packed.mask)
    expected = engine(plain, search)(plain.descriptors, plain.mask)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # half precision of the decoded


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("engine", "faiss"),
        ("hamming", "lookup"),
        ("query_block", 0),
        ("local_block", 0),
        ("ivf.probes", 0),
        ("asmk.assignments", 0),
        ("asmk.idf", "all"),
        ("cann.grids", 0),
        ("ivf.count", 0),
        ("asmk.words", 0),
        ("candidates", 5),  # which the engine exact does not have
    ],
)
def test_wrong_values_are_named(search, field, value):
    search.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"^config\.search\.{field} = {value!r}: "):
        SearchSettings.of(search)


@pytest.mark.parametrize("encoding", ["sign", "int8", "float16"])
@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_index_holds_only_signs_without_decoding(name, encoding):
    config = default.get_config()
    config.search.packed, config.search.engine = True, name
    config.extract.local_encoding = encoding
    if name == "exact" or encoding == "sign":
        engine_choice.check_packed(config)
    else:
        with pytest.raises(UserError, match=r"config\.search\.packed = True: .*exact"):
            engine_choice.check_packed(config)


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("idf_of", "all", "idf_of = 'all'"),
        ("candidates", 0, "idf_of = 'words'"),
        ("engine", "ivf", "idf_of = 'words'"),
        ("idf_images", 0, "idf_images = 0"),
        ("idf_power", -1.0, r"idf_power = -1\.0"),
        ("estimated", -1, "estimated = -1"),
    ],
)
def test_the_idf_of_words_needs_words_and_a_sample(search, field, value, wrong):
    search.engine, search.candidates, search.idf_images, search.idf_of = "asmk", 4, 5, "words"
    SearchSettings.of(search)
    search[field] = value
    with pytest.raises(UserError, match=rf"^config\.search\.{wrong}: "):
        SearchSettings.of(search)


@pytest.mark.parametrize("packed", [False, True])
def test_the_idf_of_words_is_kept_until_what_made_it_changes(
    search, database, tmp_path, packed, monkeypatch
):
    search.engine, search.candidates, search.idf_images, search.idf_of = "asmk", 4, 5, "words"
    if packed:
        codes = encodings.encode(database.descriptors, "sign").values
        database = database._replace(descriptors=codes)
    made = []
    compute = engines.word_weights

    def counted(*arguments):
        made.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(engines, "word_weights", counted)
    place = Place(tmp_path / "index", "digest")
    first = engine(database, search, place)
    again = engine(database, search, place)
    assert len(made) == 1
    one, other = first.second.idf, again.second.idf
    np.testing.assert_array_equal(one.weights, other.weights)
    queries = database.descriptors[:2], database.mask[:2]
    np.testing.assert_array_equal(first.top(*queries, 3)[0], again.top(*queries, 3)[0])
    search.threshold = 0.3
    engine(database, search, place)
    (tmp_path / "index_idf.npz").write_bytes(b"damaged")
    engine(database, search, place)
    assert len(made) == 3


@pytest.mark.parametrize("candidates", [0, 4])
@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_packed_signs_are_found_as_their_vectors_are(search, database, tmp_path, name, candidates):
    search.engine, search.candidates, search.idf_images = name, candidates, 5
    codes = encodings.encode(database.descriptors, "sign")
    packed = database._replace(descriptors=codes.values)
    plain = database._replace(descriptors=encodings.decode(codes, "sign"))
    found = []
    for one in (packed, plain):  # which make one index
        opened = engine_choice.engine(
            one, SearchSettings.of(search), Place(tmp_path / name, "digest")
        )
        found.append(opened.top(one.descriptors, one.mask, 3))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=2e-3)
    if not candidates:  # which scores of half precision may put in another order
        np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_candidates_are_compared_exactly_with_the_idf_of_the_sample(search, database, name):
    search.idf_images = 4
    exact = engine(database, search)
    search.engine, search.ivf.count, search.candidates = name, 3, len(database.mask)
    SearchSettings.of(search)
    found = engine(database, search)(database.descriptors, database.mask)
    np.testing.assert_allclose(found, exact(database.descriptors, database.mask), atol=1e-6)
