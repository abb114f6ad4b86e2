import json

import pytest

from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import open_for_writing
from delg_jax.locks import exclusive
from delg_jax.workdir import Output
from tests.folders import contents
from tests.holding import held
from tests.stores import features, names
from tests.tiny import retrieval_config

SECTIONS = ("extract", "data.min_side")
BUSY = "feature store = .*another job"


@pytest.fixture
def config(tmp_path):
    config = retrieval_config(tmp_path).copy_and_resolve_references().unlock()
    config.extract.max_features = 5
    return config


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features" / "database"


@pytest.fixture
def whole(config, folder, rng):
    """A whole store of four images."""
    with claim(config, folder) as store:
        fill(store, rng)
    return folder


def fill(store, rng):
    for run in store.missing():
        store.write(run, [features(rng, 2) for _ in run])
    store.finish()


def claim(config, folder, **changes):
    arguments = {"names": names(4), **changes}
    output = Output.of(folder, config, SECTIONS, {"weights": arguments.pop("weights", "digest")})
    layout, memory = Layout.of(config.extract), config.data.memory_megabytes
    return open_for_writing(output, layout, memory, **arguments)


def refused(pattern, config, folder, **changes):
    with pytest.raises(UserError, match=pattern), claim(config, folder, **changes):
        pass


def test_the_layout_is_that_of_the_configuration(config):
    config.extract.local_encoding, config.extract.chunk_images = "sign", 9
    found = Layout.of(config.extract)
    assert (found.local_encoding, found.chunk_images, found.max_features) == ("sign", 9, 5)


def test_a_new_store_is_empty_and_described(config, folder):
    with claim(config, folder) as store:
        assert store.names == names(4)
        assert store.missing() == [range(0, 3), range(3, 4)]
    stored = json.loads((folder / "config.json").read_text())
    assert (stored["sections"], stored["extra"]) == ([*SECTIONS], {"weights": "digest"})


@pytest.mark.parametrize("started", [False, True])
def test_two_jobs_do_not_write_one_store(config, folder, started):
    if started:
        with claim(config, folder):
            pass
    before = contents(folder)
    with held(folder):
        for overwrite in (False, True):
            refused(BUSY, config, folder, overwrite=overwrite)
        assert contents(folder) == before
    with claim(config, folder) as store, pytest.raises(UserError, match=BUSY), exclusive(folder):
        assert store.names == names(4)


def test_the_digest_that_an_interrupted_deletion_left_out_is_recorded(config, whole):
    kept = [*names(4)[:1], *names(4)[2:]]
    FeatureStore(whole).delete(names(4)[1:2])
    before = contents(whole)
    FeatureStore(whole)._update(deleted=True)  # as a deletion begins
    assert contents(whole) != before
    with claim(config, whole, names=kept, update_images=lambda store: None) as store:
        assert store.is_whole()
    assert contents(whole) == before


def test_an_append_that_is_interrupted_at_once_leaves_a_store_to_resume(config, whole, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("delg_jax.features.storage.chunked_array.ChunkedArray.resize", stop)
        with pytest.raises(KeyboardInterrupt), claim(config, whole, names=names(6)):
            pass
    with pytest.raises(UserError, match="resume"):
        FeatureStore(whole)
    with claim(config, whole, names=names(6)) as store:
        assert store.missing() == [range(4, 6)]


def test_the_lock_is_given_back_when_the_work_fails(config, folder):
    with pytest.raises(ZeroDivisionError), claim(config, folder):
        raise ZeroDivisionError
    with exclusive(folder):
        pass


def test_a_whole_store_is_read_while_another_job_holds_it(config, whole):
    before = contents(whole)
    with held(whole), claim(config, whole) as store:
        assert store.global_descriptors().shape == (4, 6)
    assert contents(whole) == before


@pytest.mark.parametrize(
    "changes",
    [{"names": names(5)}, {"weights": "other"}, {"weights": "other", "overwrite": True}],
    ids=str,
)
def test_a_change_of_a_complete_store_needs_the_lock(config, whole, changes):
    before = contents(whole)
    with held(whole):
        refused(BUSY, config, whole, **changes)
    assert contents(whole) == before


def test_another_configuration_is_refused_with_the_difference(config, whole):
    before = contents(whole)
    refused("weights: 'digest' -> 'other'", config, whole, weights="other")
    config.data.min_side = 77
    refused(r"config\.data\.min_side: \d+ -> 77", config, whole)
    assert contents(whole) == before
    config.data.min_side = retrieval_config(whole).data.min_side
    config.data.workers += 3  # decides nothing
    with claim(config, whole) as store:
        assert store.is_whole()


def test_overwriting_starts_again(config, whole):
    (whole / "skipped.csv").write_text("of before")
    config.extract.max_features = 3
    with claim(config, whole, names=["other"], overwrite=True) as store:
        assert store.names == ["other"]
        assert store.layout.max_features == 3
        assert not store.is_whole()
    assert sorted(path.name for path in whole.iterdir()) == [
        "config.json",
        "names_64",
        "store.json",
    ]


def test_overwriting_keeps_what_the_configuration_made(config, whole):
    before = contents(whole)
    with claim(config, whole, overwrite=True) as store:
        assert store.is_whole()
    assert contents(whole) == before


def test_images_are_added_behind_the_last_and_others_refused(config, whole):
    with claim(config, whole, names=names(6)) as store:
        assert store.missing() == [range(4, 6)]
    refused("other images", config, whole, names=names(6)[::-1])


def test_a_given_function_may_update_the_images(config, whole):
    def update_images(store):
        store.delete(["image1"])
        store.append(["image9"])

    wanted = ["image0", "image2", "image3", "image9"]
    with claim(config, whole, names=wanted, update_images=update_images) as store:
        assert store.names == wanted


def test_a_store_of_the_format_before_is_made_again_only_if_asked_for(config, whole):
    (whole / "store.json").unlink()
    (whole / "index.json").write_text("{}")
    refused("format 1, .* 2; .*--overwrite", config, whole)
    with claim(config, whole, overwrite=True) as store:
        assert store.names == names(4)


@pytest.mark.parametrize("array", ["store.json", "names_64/c.0.0", "state/zarr.json"])
@pytest.mark.parametrize("update_images", [None, lambda store: store.append(names(4))])
def test_damaged_rows_are_extracted_again_only_if_asked_for(config, whole, array, update_images):
    (whole / array).write_text("rubbish")
    refused(
        f"feature store = '.*{array.partition('/')[0]}", config, whole, update_images=update_images
    )
    with claim(config, whole, update_images=update_images, overwrite=True) as store:
        assert store.names == names(4)
        assert not store.is_whole()


def test_other_images_replace_those_of_before_only_if_asked_for(config, whole):
    with claim(config, whole, names=names(3), overwrite=True) as store:
        assert store.names == names(3)
        assert not store.is_whole()


def test_refusing_new_images_deletes_nothing(config, whole):
    def refuse(store):
        raise UserError("--images", "photos", "lacks images")

    before = contents(whole)
    for overwrite in (False, True):
        changes = {"names": ["new"], "update_images": refuse, "overwrite": overwrite}
        refused("lacks images", config, whole, **changes)
    assert contents(whole) == before


def test_the_first_process_claims_for_all(config, whole, monkeypatch):
    with claim(config, whole, names=names(6)):
        pass
    before = contents(whole)
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with held(whole), claim(config, whole, names=names(6)) as store:
        assert store.missing() == [range(4, 6)]
    assert contents(whole) == before


def test_a_process_that_finds_the_store_whole_waits_for_the_others(config, whole, monkeypatch):
    asked = []
    monkeypatch.setattr(distributed, "agree", lambda yes, name: asked.append(yes) or len(asked) > 1)
    with claim(config, whole) as store, pytest.raises(UserError, match=BUSY), exclusive(whole):
        assert store.is_whole()
    assert asked == [True, True]


def test_a_job_is_refused_as_one(config, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "agree", lambda yes, name: asked.append(yes))
    refused("process 0", config, folder)
    assert asked == [False, True]  # the store is not whole; it has no objection of its own
    assert not folder.exists()
