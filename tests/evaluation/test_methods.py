import pytest

from delg_jax.errors import UserError
from delg_jax.evaluation import methods
from tests import tiny


def changed(**values):
    config = tiny.tiny_config()
    for path, value in values.items():
        tree, names = config, path.split("__")
        for name in names[:-1]:
            tree = tree[name]
        tree[names[-1]] = value
    return config


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_default_suits_all_methods(method):
    methods.check("--method", method, changed())


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods_need_the_features_that_they_compare(method):
    without_local = changed(model__local_head=False)
    without_global = changed(extract__imported_local="features.h5")
    without_global.model.local_head = True
    if method in ("global", "global+superglobal"):
        methods.check("--method", method, without_local)
    else:
        with pytest.raises(UserError, match="needs local features"):
            methods.check("--method", method, without_local)
    if method in ("local", "local+sp", "local+mds"):
        methods.check("--method", method, without_global)
    else:
        with pytest.raises(UserError, match=r"needs global descriptors.*imported_global"):
            methods.check("--method", method, without_global)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rerank__superglobal__short_list", 0),
        ("rerank__superglobal__neighbours", 0),
        ("rerank__superglobal__beta", -0.1),
        ("rerank__mds__background", 1.0),
        ("search__kernel", "cosine"),
    ],
)
def test_wrong_values_are_found_before_the_work(path, value):
    with pytest.raises(UserError, match="config." + path.split("__")[0]):
        methods.check("--method", "global", changed(**{path: value}))


def test_unknown_methods_are_named():
    with pytest.raises(UserError, match=r"local\+mds\+global"):
        methods.check("--method", "global+magic", changed())
