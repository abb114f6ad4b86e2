import jax
import jax.numpy as jnp
import pytest

from delg_jax import compilation_cache
from delg_jax.compilation_cache import release_if_many


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Makes a system that allows ten maps, of which some are taken."""

    def make(taken):
        (tmp_path / "limit").write_text("10\n")
        (tmp_path / "maps").write_text("a\n" * taken)
        monkeypatch.setattr(compilation_cache, "_LIMIT", tmp_path / "limit")
        monkeypatch.setattr(compilation_cache, "_HELD", tmp_path / "maps")

    monkeypatch.setattr(compilation_cache, "_memory_then", [])
    return make


@pytest.mark.parametrize(("taken", "dropped"), [(0, False), (5, False), (6, True), (10, True)])
def test_programs_are_dropped_when_half_of_the_maps_are_taken(system, taken, dropped):
    system(taken)
    function = jax.jit(lambda x: x + 1.0)
    assert function(jnp.ones(3)).sum() == 6.0
    assert function._cache_size() == 1
    assert release_if_many() == dropped
    assert function._cache_size() == (0 if dropped else 1)
    assert function(jnp.ones(3)).sum() == 6.0


def test_systems_without_the_limit_are_left_alone(system, tmp_path):
    system(10)
    (tmp_path / "limit").unlink()
    assert not release_if_many()


def test_programs_are_dropped_when_memory_has_grown(system, tmp_path, monkeypatch):
    system(0)
    monkeypatch.setattr(compilation_cache, "_STATUS", tmp_path / "status")
    function = jax.jit(lambda x: x + 1.0)
    function(jnp.ones(3))
    dropped = []
    for megabytes in (5000, 6024, 6025, 7000, 7049, 100, 7000, 7050):
        (tmp_path / "status").write_text(f"VmRSS:\t9 kB\nRssAnon:\t{megabytes * 1024} kB\n")
        dropped.append(release_if_many())
    assert dropped == [False, False, True, False, False, False, False, True]
    assert function._cache_size() == 0
    (tmp_path / "status").unlink()
    assert not release_if_many()


def test_dropping_gives_maps_back():
    def held():
        return len(compilation_cache._HELD.read_bytes().splitlines())

    if not compilation_cache._HELD.exists():
        pytest.skip("only Linux lists the maps of a process")
    jax.clear_caches()
    before = held()
    for size in range(1, 13):
        jax.jit(lambda x: jnp.sort(jnp.sin(x)) @ x)(jnp.ones(size)).block_until_ready()
    taken = held() - before
    assert taken > 12
    jax.clear_caches()
    assert held() - before < taken / 2


def test_programs_are_kept_in_the_folder_of_caches(tmp_path, monkeypatch):
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_compilation_cache_max_size",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation_cache.keep_on_disk()
    assert jax.config.jax_compilation_cache_dir == before[names[0]]  # as it was given
    try:
        jax.config.update(names[0], None)
        compilation_cache.keep_on_disk()
        (folder,) = (tmp_path / "delg_jax" / "compiled").iterdir()
        assert jax.config.jax_compilation_cache_dir == str(folder)
        jax.config.update(names[0], None)
        monkeypatch.setattr(compilation_cache, "_CPU", tmp_path / "absent")
        compilation_cache.keep_on_disk()
        assert len(list(folder.parent.iterdir())) == 2  # of another processor
        (tmp_path / "file").touch()
        jax.config.update(names[0], None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        compilation_cache.keep_on_disk()  # there cannot be a folder
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
