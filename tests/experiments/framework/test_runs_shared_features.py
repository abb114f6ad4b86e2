from configs import quickstart
from delg_jax import configuration
from experiments.framework import runs

BASE = quickstart.get_config("smoke")


def changed(**fields):
    return configuration.override(BASE, {f.replace("__", "."): v for f, v in fields.items()})


def test_only_what_decides_features_decides_their_name():
    name = runs.digest(BASE)
    same = changed(rerank__sp__one_bit=True, search__threshold=0.1, eval__methods=("local",))
    assert runs.digest(same) == name
    for other in (
        changed(model__checkpoint="elsewhere"),
        changed(seed=1),
        changed(extract__max_features=7),
        changed(data__root="elsewhere"),
    ):
        assert runs.digest(other) != name


def test_a_link_leads_to_the_features_of_its_configuration(tmp_path):
    shared = tmp_path / "features"
    runs.link(BASE, tmp_path / "a", shared)
    runs.link(changed(rerank__sp__ratio=0.9), tmp_path / "b", shared)
    (tmp_path / "a" / "features" / "database").mkdir()
    assert (tmp_path / "b" / "features" / "database").is_dir()
    runs.link(changed(seed=1), tmp_path / "b", shared)
    assert not (tmp_path / "b" / "features" / "database").exists()
    assert len(list(shared.iterdir())) == 2


def test_features_that_were_extracted_in_place_stay(tmp_path):
    (tmp_path / "a" / "features" / "database").mkdir(parents=True)
    runs.link(BASE, tmp_path / "a", tmp_path / "features")
    assert not (tmp_path / "a" / "features").is_symlink()
