import json
import math

import pytest

from delg_jax.errors import UserError
from delg_jax.sweeps import sweep_spec
from delg_jax.sweeps.sweep_spec import Distribution, Spec


def write(tmp_path, content):
    path = tmp_path / "sweep.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_fields_are_read_from_the_command_line():
    specs = ["train.steps=1,2", "model.pooling=gem", "train.learning_rate=loguniform(1e-4,1e-2)"]
    given = {"draws": 3, "draw_seed": None, "seeds": [0, 1], "verbs": ["train"]}
    assert sweep_spec.read(specs, given) == Spec(
        grid={"train.steps": (1, 2), "model.pooling": ("gem",)},
        random={"train.learning_rate": Distribution("loguniform", (1e-4, 1e-2))},
        draws=3,
        seeds=(0, 1),
        verbs=("train",),
    )


def test_a_file_holds_everything(tmp_path):
    content = {
        "settings": [{"model.pooling": "gem", "train.steps": 10}, {"model.pooling": "avg"}],
        "grid": {"extract.local_scales": [[0.5, 1.0], [1.0]]},
        "random": {"train.batch_size": {"choice": [8, 16]}},
        "draws": 2,
        "draw_seed": 5,
        "seeds": [0, 1],
        "verbs": ["evaluate"],
    }
    found = sweep_spec.read([write(tmp_path, content)], {"draws": None})
    assert found == Spec(
        settings=tuple(content["settings"]),
        grid={"extract.local_scales": ([0.5, 1.0], [1.0])},
        random={"train.batch_size": Distribution("choice", (8, 16))},
        draws=2,
        draw_seed=5,
        seeds=(0, 1),
        verbs=("evaluate",),
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_saved_by_an_editor_is_read(tmp_path, encoding):
    path = tmp_path / "sweep.json"
    path.write_bytes('{"grid": {"data.name": ["é\u2028"]}}\r\n\r\n'.encode(encoding))
    assert sweep_spec.read([str(path)], {}).grid == {"data.name": ("é\u2028",)}


def test_file_and_command_line_add_up(tmp_path):
    path = write(tmp_path, {"grid": {"train.steps": [1]}})
    found = sweep_spec.read([path, "model.pooling=gem,avg"], {"seeds": [3]})
    assert found == Spec(grid={"train.steps": (1,), "model.pooling": ("gem", "avg")}, seeds=(3,))
    folder = tmp_path / "a=b"  # a path may look like a field
    folder.mkdir()
    assert sweep_spec.read([write(folder, {"seeds": [1]})], {}).seeds == (1,)


@pytest.mark.parametrize(
    ("specs", "given", "names"),
    [
        (["seed"], {}, "'seed': .*JSON file"),
        (["=1"], {}, "'=1': .*field=value"),
        (["seed="], {}, "'seed=': .*field=value"),
        (["seed=1", "seed=2"], {}, "seed .*twice"),
        (["seed=1", "seed=integers(1,2)"], {"draws": 1}, "seed .*twice"),
        (["seed=1"], {"seeds": [1]}, "grid and seeds"),
        (["seed=integers(1,2)"], {}, "--draws"),
        (["seed=1"], {"draws": 2}, "draws = 2: .*random"),
        (["seed=1"], {"draws": 0}, "draws = 0: .*from 1"),
        (["seed=1"], {"draw_seed": -1}, "draw_seed = -1: .*from 0"),
        (["train.steps=1"], {"seeds": [1, 1]}, "seeds = .*twice"),
        (["train.steps=1"], {"seeds": []}, "seeds = .*at least one"),
        (["train.steps=1"], {"verbs": ["train", "train"]}, "verbs = .*twice"),
        (["train.steps=1"], {"verbs": []}, "verbs = .*at least one"),
        ([], {}, "no field"),
        (["a.json", "b.json"], {}, r"b\.json.*second"),
    ],
)
def test_mistakes_of_the_command_line_are_refused(specs, given, names):
    with pytest.raises(UserError, match=names):
        sweep_spec.read(specs, given)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("{", "JSON file"),
        ("[" * 100_000, "JSON file"),
        ("[1]", "JSON object"),
        ("{}", "no field"),
        ('{"seeds": [1], "seeds": [2]}', "seeds.* twice"),
        ('{"grid": {"seed": [1], "seed": [2]}}', "seed.* twice"),
        ({"gird": {}}, "gird.*grid"),
        ({"grid": [1]}, "grid.*object"),
        ({"grid": {"seed": 1}}, "grid.*seed.* = 1: "),
        ({"grid": {"seed": []}}, r"grid.*seed.* = \[\]: "),
        ({"grid": {"seed": {"uniform": [1, 2]}}}, "grid.*seed.* = {'uniform'"),
        ({"random": {"seed": [1]}}, r"random.*seed.* = \[1\]: "),
        ({"random": {"seed": {"uniform": [1, 2], "choice": [1]}}}, "random.*seed.* = {'uniform'"),
        ({"random": {"seed": {"normal": [1, 2]}}, "draws": 1}, "seed.*'normal'.*uniform"),
        ({"random": {"seed": {"uniform": 1}}, "draws": 1}, "seed.*two numbers"),
        ({"settings": {}}, "settings.*list"),
        ({"settings": [1]}, "settings.* = 1: .*object"),
        ({"settings": [{}]}, "settings.* = {}: .*object"),
        ({"settings": [{"seed": 1}], "grid": {"seed": [1]}}, "settings and grid"),
        ({"settings": [{"a": 1}, {"seed": 1}], "seeds": [1]}, "settings and seeds"),
        ({"seeds": 1}, "seeds = 1: .*list"),
        ({"seeds": [True]}, "seeds = True: .*whole number"),
        ({"seeds": ["1"]}, "seeds = '1': .*whole number"),
        ({"verbs": [1]}, "verbs = 1: .*verb"),
        ({"draws": 1.5}, r"draws = 1\.5: .*whole number"),
    ],
)
def test_mistakes_of_a_file_are_refused(tmp_path, content, names):
    with pytest.raises(UserError, match=names) as raised:
        sweep_spec.read([write(tmp_path, content)], {})
    assert "\n" not in str(raised.value)


def test_flags_of_a_file_are_not_repeated(tmp_path):
    path = write(tmp_path, {"seeds": [1]})
    with pytest.raises(UserError, match="--seeds.*sweep.json"):
        sweep_spec.read([path], {"seeds": [1]})
    with pytest.raises(UserError, match="directory"):
        sweep_spec.read([str(tmp_path)], {})


def draws(kind, *arguments, field="a", seed=0, count=400):
    chances = sweep_spec.distribution("x", kind, list(arguments))
    return [chances.draw(field, seed, number) for number in range(count)]


def test_draws_fill_their_range_evenly():
    uniform = draws("uniform", -2, 3)
    assert -2 <= min(uniform) < -1.9
    assert 2.9 < max(uniform) <= 3
    assert abs(sum(uniform) / len(uniform) - 0.5) < 0.25
    logs = [math.log10(value) for value in draws("loguniform", 1e-4, 1e-2)]
    assert -4 <= min(logs) < -3.95
    assert -2.05 < max(logs) <= -2
    assert abs(sum(logs) / len(logs) + 3) < 0.1
    integers = draws("integers", 1, 4)
    assert {type(value) for value in integers} == {int}
    assert all(abs(integers.count(value) - 100) < 40 for value in (1, 2, 3, 4))
    assert set(integers) == {1, 2, 3, 4}
    assert set(draws("choice", "gem", 2, None)) == {"gem", 2, None}


def test_draws_depend_on_seed_field_and_number_alone():
    assert draws("uniform", 0, 1, count=5) == draws("uniform", 0, 1, count=9)[:5]
    assert draws("uniform", 0, 1) != draws("uniform", 0, 1, seed=1)
    assert draws("uniform", 0, 1) != draws("uniform", 0, 1, field="b")
    # The same on every machine and in every version of Python
    assert draws("uniform", 0, 1, count=3) == [0.512226, 0.482933, 0.327494]


def test_a_rounded_draw_stays_within_its_range():
    ends = (0.12345678, 0.12345679)
    assert all(ends[0] <= value <= ends[1] for value in draws("uniform", *ends))


@pytest.mark.parametrize(
    ("text", "kind", "arguments"),
    [
        ("loguniform(1e-4,1e-2)", "loguniform", (1e-4, 1e-2)),
        ("integers(1, 4)", "integers", (1, 4)),
        ("choice(gem,avg)", "choice", ("gem", "avg")),
        ("choice((0.5,1.0),(1.0,))", "choice", ((0.5, 1.0), (1.0,))),
    ],
)
def test_a_function_call_is_parsed(text, kind, arguments):
    assert sweep_spec.parse("x", text) == Distribution(kind, arguments)


@pytest.mark.parametrize("text", ["gem", "1,2", "(1,2)", "normal(0,1)", "uniform", "uniform(1,2"])
def test_text_that_is_no_call_is_kept(text):
    assert sweep_spec.parse("x", text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uniform(1)", "two numbers"),
        ("uniform(2,1)", "first"),
        ("uniform(1,1)", "first"),
        ("uniform(a,b)", "two numbers"),
        ("uniform(0,True)", "two numbers"),
        ("uniform(0,1e999)", "two numbers"),
        ("integers(0.5,2)", "two whole numbers"),
        ("loguniform(0,1)", "above 0"),
        ("choice()", "values"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        sweep_spec.parse("x", text)
    with pytest.raises(UserError, match="'normal': .*uniform"):
        sweep_spec.distribution("x", "normal", [0, 1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,1e-2", [0.1, 0.01]),
        ("gem,avg,1,True", ["gem", "avg", 1, True]),
        ("(0.5,1.0)", [(0.5, 1.0)]),
        ("'a,b',c", ["'a", "b'", "c"]),
        ("'a,b','c'", ["a,b", "c"]),
        ("a/b c", ["a/b c"]),
        ("", []),
    ],
)
def test_values_are_literals_or_text(text, expected):
    assert sweep_spec.values(text) == expected
