import pytest

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.features import dimensions, extract
from tests import photographs, tiny


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("config.model.local_dim", 8)),
        ({"extract.pca_dim": 5}, ("config.extract.pca_dim", 5)),
        ({"model.dim_reduction": "none"}, ("", 0)),
        ({"model.dim_reduction": "none", "extract.pca_dim": 5}, ("config.extract.pca_dim", 5)),
        ({"model.local_head": False}, ("", 0)),
        ({"extract.imported_local": "features.h5"}, ("", 0)),
    ],
)
def test_the_dimension_is_that_of_the_last_step(changes, expected):
    config = configuration.override(tiny.tiny_config(), changes)
    assert dimensions.local_dimension(config) == expected
    dimensions.check(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.local_dim": 12, "extract.local_encoding": "sign"},
            "config.model.local_dim = 12: must be a multiple of 8: "
            "config.extract.local_encoding = 'sign' packs bits",
        ),
        (
            {"extract.pca_dim": 5, "extract.local_encoding": "sign"},
            "config.extract.pca_dim = 5: must be a multiple of 8: "
            "config.extract.local_encoding = 'sign' packs bits",
        ),
        (
            {"extract.pca_dim": 16},
            "config.extract.pca_dim = 16: must be at most config.model.local_dim (=8), "
            "the dimension before projection",
        ),
    ],
)
def test_impossible_dimensions_are_refused_before_anything_is_read(tmp_path, changes, message):
    config = tiny.retrieval_config(photographs.make_revisited(tmp_path / "data"))
    config = configuration.override(config, {**changes, "data.root": str(tmp_path / "absent")})
    with pytest.raises(UserError) as raised:
        extract(config, tmp_path / "run")
    assert str(raised.value) == message
    assert not (tmp_path / "run").exists()
