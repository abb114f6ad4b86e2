import os
import pwd
import re

import ml_collections
import pytest

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.training.train import train_and_evaluate

DEFAULTS = {"fast": False, "steps": 10, "rate": 0.5, "name": "a"}


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        (None, {}),
        ("", {}),
        (",", {}),
        ("fast", {"fast": True}),
        ("fast=true", {"fast": True}),
        ("fast=False", {"fast": False}),
        ("fast=1,steps=-3", {"fast": True, "steps": -3}),
        ("rate=2", {"rate": 2.0}),
        ("rate=1e-3,name=b=c", {"rate": 1e-3, "name": "b=c"}),
        ("name=", {"name": ""}),
        ("steps=1,steps=2", {"steps": 2}),
    ],
)
def test_arguments_keep_the_type_of_their_default(argument, changes):
    parsed = configuration.parse_argument(argument, DEFAULTS)
    assert parsed.to_dict() == {**DEFAULTS, **changes}
    for name, value in parsed.items():
        assert type(value) is type(DEFAULTS[name])


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("step=3", " = 'step': .*'steps'.*fast, steps, rate, name"),
        ("zzz", " = 'zzz': .*fast, steps, rate, name"),
        ("steps", "steps=10"),
        ("steps=1.5", r" steps = '1\.5': .*int"),
        ("rate=fast", " rate = 'fast': .*float"),
        ("fast=maybe", " fast = 'maybe': "),
        ("fast=", " fast = '': "),
    ],
)
def test_a_wrong_argument_is_refused(argument, names):
    with pytest.raises(UserError, match=f"^--config argument.*{names}"):
        configuration.parse_argument(argument, DEFAULTS)


def test_a_config_without_arguments_says_so():
    with pytest.raises(UserError, match="--config argument = 'fast': .*no argument"):
        configuration.parse_argument("fast", {})


def test_parsed_arguments_are_locked():
    parsed = configuration.parse_argument("", DEFAULTS)
    with pytest.raises(AttributeError):
        parsed.stepps = 3


@pytest.fixture
def tree():
    config = ml_collections.ConfigDict({"seed": 0, "model": {"dim": 2, "scales": (0.5, 1.0)}})
    config.model2 = ml_collections.ConfigDict({"dim": 3, "deep": {"er": None}})
    return config


def test_flatten_gives_json_values_by_path(tree):
    assert configuration.flatten(tree) == {
        "seed": 0,
        "model.dim": 2,
        "model.scales": [0.5, 1.0],
        "model2.dim": 3,
        "model2.deep.er": None,
    }


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        (("model",), {"model.dim", "model.scales"}),
        (("seed", "model2.deep"), {"seed", "model2.deep.er"}),
        (("model.di",), set()),
    ],
)
def test_a_section_is_a_whole_name(tree, sections, names):
    flat = configuration.flatten(tree)
    expected = {name: flat[name] for name in names}
    assert configuration.flatten(tree, sections) == expected
    assert configuration.within(flat, sections) == expected


def test_difference_names_changed_new_and_lost_fields():
    old, new = {"a": 1, "b": [1, 2], "c": None}, {"a": 1, "b": [2, 1], "d": "x"}
    assert configuration.difference(old, old) == []
    assert configuration.difference(old, new) == [
        "config.b: [1, 2] -> [2, 1]",
        "config.c: None -> '(absent)'",
        "config.d: '(absent)' -> 'x'",
    ]


@pytest.mark.parametrize(("weights", "differs"), [("", False), ("a.npz", True)])
def test_the_naming_of_weights_differs_only_where_there_are_weights(weights, differs):
    old = {"model.pretrained": weights, "model.pretrained_source": "torchvision"}
    new = {**old, "model.pretrained_source": ""}
    assert bool(configuration.difference(old, new)) == differs
    assert configuration.difference(old, {**new, "model.pretrained": "b.npz"})
    del old["model.pretrained"], new["model.pretrained"]  # of a part of the tree
    assert configuration.difference(old, new)


def test_override_changes_a_copy(tree):
    changed = configuration.override(tree, {"model.dim": 5, "seed": 1})
    assert configuration.difference(
        configuration.flatten(tree), configuration.flatten(changed)
    ) == [
        "config.model.dim: 2 -> 5",
        "config.seed: 0 -> 1",
    ]
    assert changed.is_locked


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("model.dimm", 5, r"model\.dim\b"),
        ("model", 5, "field"),
        ("zzz", 5, "field"),
        ("model.dim", "five", "int"),
        ("model.dim", True, "int"),
        ("model.dim", None, "int"),
        ("model.dim", 2**63, "64 bits"),
        ("model.scales", ("a",), r"0\.5"),
        ("model.scales", (True,), r"0\.5"),
        ("model.scales", (1.0, float("nan")), "finite"),
        ("model.rate", float("nan"), "finite"),
        ("model.rate", float("-inf"), "finite"),
        ("model.rate", 10**400, "float"),
        ("model.rate", True, "float"),
        ("model.flag", 1, "bool"),
        ("model.name", None, "str"),
    ],
)
def test_a_wrong_override_is_refused(tree, path, value, word):
    tree.model.update({"rate": 0.5, "flag": False, "name": "a"})
    named = re.escape(f"config.{path} = {value!r}: ")
    with pytest.raises(UserError, match=f"^{named}.*{word}"):
        configuration.override(tree, {path: value})


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.rate", 1, 1.0),
        ("model.scales", [1, 0.5], (1, 0.5)),
        ("model.scales", (), ()),
        ("model2.deep.er", "text", "text"),
    ],
)
def test_what_fits_is_taken(tree, path, value, expected):
    tree.model.rate = 0.5
    changed = configuration.override(tree, {path: value})
    for part in path.split("."):
        changed = changed[part]
    assert changed == expected
    assert type(changed) is type(expected)


def test_load_runs_the_file_with_its_argument_and_locks_the_tree(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(changing("config.data.root = argument"))
    assert configuration.load(str(path)).data.root == ""
    config = configuration.load(str(path), "real")
    assert config.data.root == "real"
    assert config.is_locked


def changing(line):
    """The text of a config file that runs a line on the default."""
    start = "from configs import default\ndef get_config(argument):\n"
    return f"{start}  config = default.get_config()\n  {line}\n  return config\n"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("config.seeed = 3", r"seeed = 3: .*\bseed\b"),
        ("config.model.globl_dim = 3", r"model\.globl_dim = 3: .*model\.global_dim"),
        ("del config.search.engine", r"search\.engine = None: "),
        ("del config.search", "search = None: "),
        ("del config.seed; config.seed = 'a'", "seed = 'a': .*int"),
        ("del config.eval; config.eval = 1", "eval = 1: .*section"),
        ("config.train.learning_rate = float('nan')", r"train\.learning_rate = nan: .*finite"),
        ("config.data.root = '~no_such_user/x'", r"data\.root = .*: .*no_such_user"),
    ],
)
def test_load_holds_a_file_to_the_fields_of_the_default(tmp_path, line, names):
    path = tmp_path / "mine.py"
    path.write_text(changing(line))
    with pytest.raises(UserError, match=rf"config\.{names}"):
        configuration.load(path)


@pytest.mark.parametrize("field", configuration.PATHS)
def test_the_home_directory_is_expanded_in_every_path(tmp_path, monkeypatch, field):
    monkeypatch.setenv("HOME", "/home/me")
    assert isinstance(configuration.flatten(default.get_config())[field], str)
    changed = configuration.override(default.get_config(), {field: "~/x"})
    assert configuration.flatten(changed)[field] == "/home/me/x"
    path = tmp_path / "mine.py"
    path.write_text(changing(f"config.{field} = '~'"))
    assert configuration.flatten(configuration.load(path))[field] == "/home/me"
    with pytest.raises(UserError, match=f"config.{field} = '~no_such_user/x'"):
        configuration.override(default.get_config(), {field: "~no_such_user/x"})


@pytest.mark.parametrize("path", ["", "x", "./~/x", "a/~", "$HOME/x", "/~", "gs:/a", "c:/x"])
def test_other_paths_stay_as_they_are(path):
    assert configuration.local_path("--workdir", path) == path


@pytest.mark.parametrize("path", ["gs://bucket/x", "s3://bucket", "hdfs://a", "file:///x"])
def test_a_path_of_another_file_system_is_refused(path, tmp_path):
    scheme = path.partition("//")[0] + "//"
    named = f" = '{path}': .*{scheme};"
    with pytest.raises(UserError, match=f"^--workdir{named}"):
        configuration.local_path("--workdir", path)
    with pytest.raises(UserError, match=f"^workdir{named}"):
        train_and_evaluate(default.get_config(), path)
    for field in configuration.PATHS:
        with pytest.raises(UserError, match=f"^config.{field}{named}"):
            configuration.override(default.get_config(), {field: path})
    config = tmp_path / "mine.py"
    config.write_text(changing(f"config.data.tfds_dir = '{path}'"))
    with pytest.raises(UserError, match=f"^config.data.tfds_dir{named}"):
        configuration.load(config)


def test_a_user_name_expands_to_a_home_directory():
    user = pwd.getpwuid(os.getuid())
    assert configuration.local_path("--workdir", f"~{user.pw_name}/x") == f"{user.pw_dir}/x"


@pytest.mark.parametrize("name", ["absent.py", "config.json", "."])
def test_load_refuses_what_is_not_a_python_file(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="--config = "):
        configuration.load(str(tmp_path / name))


def test_a_flattened_tree_is_restored():
    tree = ml_collections.ConfigDict(
        {"seed": 1, "search": {"cann": {"norm": 2.0}, "kinds": (1, 2)}}
    )
    assert configuration.unflatten(configuration.flatten(tree)) == tree
