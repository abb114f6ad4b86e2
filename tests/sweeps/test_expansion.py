import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.sweeps import expansion
from delg_jax.sweeps.sweep_spec import Distribution, Spec

BASE = default.get_config().lock()


def expand(**fields):
    return expansion.expand(BASE, Spec(**fields))


def test_a_sweep_is_the_product_of_its_parts():
    runs = expand(
        settings=({"model.pooling": "gem", "train.steps": 10}, {"model.pooling": "avg"}),
        grid={"train.learning_rate": (1, 0.5)},
        seeds=(0, 7),
        verbs=("train",),
    )
    assert [dict(run.overrides) for run in runs] == [
        {**setting, "train.learning_rate": rate, "seed": seed}
        for setting in ({"model.pooling": "gem", "train.steps": 10}, {"model.pooling": "avg"})
        for rate in (1.0, 0.5)
        for seed in (0, 7)
    ]
    assert runs[0].name == "model.pooling=gem_train.steps=10_train.learning_rate=1.0_seed=0"
    assert runs[0].group == "model.pooling=gem train.steps=10 train.learning_rate=1.0"
    assert len({run.name for run in runs}) == 8
    assert [run.group for run in runs[::2]] == [run.group for run in runs[1::2]]
    assert {run.verbs for run in runs} == {("train",)}


def test_seeds_alone_are_one_setting():
    runs = expand(seeds=(0, 1))
    assert [(run.name, run.group) for run in runs] == [("seed=0", "all"), ("seed=1", "all")]
    runs = expand(grid={"data.synthetic.seed": (5,), "train.steps": (1,)})
    assert runs[0].group == "train.steps=1"


def test_draws_are_joint_and_the_same_in_every_setting():
    random = {
        "train.learning_rate": Distribution("loguniform", (1e-4, 1e-2)),
        "train.warmup_steps": Distribution("integers", (1, 1000)),
    }
    runs = expand(grid={"model.pooling": ("gem", "avg")}, random=random, draws=3, draw_seed=1)
    drawn = [[run.overrides[field] for field in random] for run in runs]
    assert len(runs) == 6
    assert drawn[:3] == drawn[3:]
    assert len({tuple(values) for values in drawn}) == 3
    more = expand(random=random, draws=5, draw_seed=1)
    assert [[run.overrides[field] for field in random] for run in more[:3]] == drawn[:3]


def test_a_draw_is_made_once():
    runs = expand(random={"model.pooling": Distribution("choice", ("gem", "avg"))}, draws=50)
    assert {run.overrides["model.pooling"] for run in runs} == {"gem", "avg"}
    assert len(runs) == 2


def test_values_take_the_types_of_their_fields():
    runs = expand(grid={"extract.local_scales": ([0.5, 1], [1.0]), "train.learning_rate": (1,)})
    assert runs[0].overrides["extract.local_scales"] == (0.5, 1)
    assert runs[0].name == "extract.local_scales=0.5,1_train.learning_rate=1.0"
    assert type(runs[0].overrides["train.learning_rate"]) is float


def test_names_are_fit_for_folders():
    roots = ("a/b", "a b", "../..", "é", "x" * 300, "x" * 301, "gem", "GEM", "*|\n")
    runs = expand(grid={"data.root": roots}, seeds=(0, 1))
    names = [run.name for run in runs]
    assert len({name.lower() for name in names}) == len({run.group for run in runs}) * 2 == 18
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=,+-")
    assert all(set(name) <= allowed and len(name) <= 120 for name in names)
    assert all(name.startswith("data.root=") for name in names)
    assert names == [run.name for run in expand(grid={"data.root": roots}, seeds=(0, 1))]
    alone = expand(grid={"data.root": ("a/b",)}, seeds=(0,))
    assert alone[0].name == names[0]  # a name does not depend on the other runs


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"grid": {"train.learning_rat": (0.1,)}}, r"train\.learning_rate\b"),
        ({"settings": ({"train": 1},)}, r"config\.train = 1: "),
        ({"grid": {"model.pooling": ({},)}}, r"config\.model\.pooling = {}: "),
        ({"grid": {"extract.local_scales": (0.5,)}}, r"config\.extract\.local_scales = 0\.5: "),
        ({"grid": {"train.learning_rate": (1, 1.0)}}, r"config\.train\.learning_rate .*twice"),
        ({"settings": ({"train.steps": 1}, {"train.steps": 1})}, r"'train\.steps': 1.*twice"),
        (
            {"random": {"train.steps": Distribution("uniform", (1, 2))}, "draws": 1},
            r"config\.train\.steps = 1\.\d+: .*int",
        ),
        ({"grid": {"train.steps": tuple(range(501))}, "seeds": (0, 1)}, "1002: .*--max_runs"),
    ],
)
def test_mistakes_are_found(fields, names):
    with pytest.raises(UserError, match=names):
        expand(**fields)


def test_too_many_runs_are_refused_before_they_are_listed():
    fields = ("train.steps", "train.warmup_steps", "train.log_every", "train.eval_every", "seed")
    with pytest.raises(UserError, match="10000000000: .*--max_runs=1000"):
        expand(grid={field: tuple(range(100)) for field in fields})
