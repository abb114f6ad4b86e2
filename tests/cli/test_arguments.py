import importlib
import re
from pathlib import Path

import pytest
from absl import flags

from delg_jax import configuration
from delg_jax.cli import arguments
from delg_jax.cli.arguments import expand_flag_files
from delg_jax.cli.main import VERBS, main
from delg_jax.errors import UserError
from delg_jax.training import train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONFIG = f"--config={CONFIGS / 'revisited.py'}"
OURS = "default, .*quickstart, "  # names of configs


@pytest.fixture
def called(monkeypatch):
    """What `delg train` would have run with."""
    noted = []

    def train_and_evaluate(*arguments):
        noted.append(arguments)
        return {"loss": 0.5}

    monkeypatch.setattr(train, "train_and_evaluate", train_and_evaluate)
    return noted


def mistake(capsys, *argv):
    """The only line on stderr of a command line that is refused."""
    assert main(["train", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.removeprefix("delg: ").removesuffix("\n")


def test_overrides_reach_the_configuration(called, capsys):
    overrides = [
        "--config.model.global_dim=64",
        "--config.train.learning_rate=1e-3",
        "--config.data.name=folder",
        "--config.model.local_head=False",
        "--config.extract.local_scales=(0.5, 1.0)",
        "--config.rerank.sp.mutual",
        "--config.data.root",
        "a folder",
    ]
    assert main(["train", CONFIG, "--workdir=w", *overrides, "--overwrite"]) == 0
    ((config, workdir, overwrite),) = called
    assert config.model.global_dim == 64
    assert config.train.learning_rate == 1e-3
    assert (config.data.name, config.data.root) == ("folder", "a folder")
    assert config.model.local_head is False
    assert tuple(config.extract.local_scales) == (0.5, 1.0)
    assert config.rerank.sp.mutual is True
    assert config.is_locked
    assert (workdir, overwrite) == ("w", True)
    assert "| loss" in capsys.readouterr().out


def test_the_argument_of_a_config_file_is_passed_on(called):
    assert main(["train", f"{CONFIG}:real", "--workdir=w"]) == 0
    config, _, overwrite = called[0]
    assert config.model.dim_reduction == "none"
    assert overwrite is False


def test_a_config_file_finds_its_neighbours_from_anywhere(called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "small.py").write_text(
        "from configs import default\ndef get_config():\n  return default.get_config()\n"
    )
    assert main(["train", "--config=mine/small.py", "--workdir=w"]) == 0
    assert called[0][0].seed == 0


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.globl_dim=3", r"model\.globl_dim = '3': .*global_dim"),
        ("modl.global_dim=3", r"modl\.global_dim = '3': .*model"),
        ("zzz=3", "zzz = '3': .*field"),
        ("seed.x=3", r"seed\.x = '3': .*field"),
        ("model.global_dim=abc", r"model\.global_dim = 'abc': .*whole number"),
        ("model.global_dim=1.5", r"model\.global_dim = '1\.5': .*whole number"),
        ("train.learning_rate=fast", r"train\.learning_rate = 'fast': .*number"),
        ("model.local_head=maybe", r"model\.local_head = 'maybe': .*true or false"),
        ("model=3", "model = '3': .*section"),
        ("train.learning_rate=nan", r"train\.learning_rate = nan: .*finite"),
        ("train.learning_rate=1e999", r"train\.learning_rate = inf: .*finite"),
        ("eval.kappas=('a',)", r"eval\.kappas = \('a',\): .*1"),
        ("train={}", "train = {}: .*section"),
        ("eval.kappas[9]=1", r"eval\.kappas\[9\] = '1': .*field"),
        (f"seed={2**64}", f"seed = {2**64}: .*64 bits"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(capsys, override, named):
    message = mistake(capsys, CONFIG, "--workdir=w", f"--config.{override}")
    assert re.match(rf"config\.{named}", message), message


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([CONFIG], "--workdir = None: "),
        ([CONFIG, "--workdir="], "--workdir = '': "),
        (["--workdir=w"], f"--config = None: .*{OURS}"),
        (
            ["quickstart:smoke", "--workdir=w"],
            "delg train = 'quickstart:smoke': .*--config=quickstart:smoke",
        ),
        ([CONFIG, "--workdr=w"], r"--workdr = 'w': .*--workdir\b"),
        ([CONFIG, "--workdir=w", "--nonsense"], "--nonsense = '': "),
        ([CONFIG, "--workdir=w", "--overwrite=x"], "--overwrite = 'x': "),
        ([CONFIG, "--workdir=w", "more", "words"], "delg train = 'more words': "),
        (["--config=absent.py", "--workdir=w"], rf"--config = 'absent\.py': .*{OURS}"),
        ([f"--config={CONFIGS}", "--workdir=w"], f"--config = '{CONFIGS}': .*{OURS}"),
        ([f"{CONFIG}:reel", "--workdir=w"], "--config argument = 'reel': .*real, trained, gem"),
        ([f"{CONFIG}:real=2", "--workdir=w"], "--config argument real = '2': "),
        ([f"{CONFIG}:real,gem", "--workdir=w"], "--config argument = 'real,gem': "),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(capsys, argv, named):
    message = mistake(capsys, *argv)
    assert re.match(named, message), message


@pytest.mark.parametrize("content", [None, bytes(range(128, 256))])
def test_a_file_of_flags_that_cannot_be_read_is_named(capsys, tmp_path, content):
    path = tmp_path / "flags"
    if content:
        path.write_bytes(content)
    message = mistake(capsys, f"--flagfile={path}", CONFIG, "--workdir=w")
    assert message.startswith(f"--flagfile = {str(path)!r}: ")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("def get_config(:", "fails at {path}, line 1: SyntaxError: invalid syntax"),
        ("seed = 1", "must define a function get_config"),
    ],
)
def test_a_broken_config_file_is_named(capsys, tmp_path, text, rule):
    path = tmp_path / "broken.py"
    path.write_text(text + "\n")
    expected = f"--config = '{path}': {rule.format(path=path)}"
    assert mistake(capsys, f"--config={path}", "--workdir=w") == expected


def test_home_directories_are_expanded_in_flags_fields_and_files(called, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_text(
        "from configs import default\ndef get_config():\n  return default.get_config()\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    overrides = [f"--config.{field}=~/x" for field in configuration.PATHS]
    assert main(["train", "--config=~/mine.py", "--workdir=~/w", *overrides]) == 0
    config, workdir, _ = called[0]
    assert workdir == f"{home}/w"
    flat = configuration.flatten(config)
    assert {flat[field] for field in configuration.PATHS} == {f"{home}/x"}
    (home / "flags").write_text("--config=~/mine.py\n--workdir=~/v\n")
    assert main(["train", "--flagfile=~/flags"]) == 0
    assert called[1][1] == f"{home}/v"
    assert list(tmp_path.iterdir()) == [home]


@pytest.mark.parametrize("field", ["workdir", "config.data.root", "config"])
def test_an_unknown_user_is_refused(capsys, field):
    subject = field if field.startswith("config.") else f"--{field}"
    message = mistake(capsys, CONFIG, "--workdir=w", f"--{field}=~no_such_user/x")
    assert message.startswith(f"{subject} = '~no_such_user/x': ")
    assert "./~no_such_user" in message  # what to write for a folder of that name


@pytest.mark.parametrize("place", ["file", "file/below/it", "dangling"])
def test_a_file_in_the_place_of_the_workdir_is_refused(capsys, tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    path, blocking = tmp_path / place, tmp_path / place.partition("/")[0]
    message = mistake(capsys, CONFIG, f"--workdir={path}")
    assert re.match(rf"--workdir = '{path}': .* {blocking}\b", message)


@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if verb not in ("prepare", "train", "verify")]
)
def test_every_verb_expands_home_directories_in_its_paths(verb, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    module, values = importlib.import_module(f"delg_jax.cli.{verb}"), flags.FlagValues()
    module.define_flags(values, [CONFIG])
    expected = {
        "workdir", "index", "output", "images", "image", "mapping", "slurm", "data_root", "data",
        "weights", "results",
    }  # fmt: skip
    paths = sorted(expected & set(values))
    assert paths
    assert not [name for name in paths if str(values[name].default).startswith(("..", "/", "~"))]
    config = [CONFIG] if "config" in values else []
    values(["delg", *config, *(f"--{name}=~/x" for name in paths)])
    assert {name: values[name].value for name in paths} == dict.fromkeys(paths, "/home/me/x")


def test_words_that_are_no_flags_are_paths_too(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/me")
    assert main(["verify", "~/store"]) == 2
    assert "'/home/me/store'" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--workdir", "--config.data.tfds_dir"])
def test_a_folder_that_arrays_could_not_be_written_to_is_refused(capsys, flag):
    message = mistake(capsys, CONFIG, "--workdir=run", f"{flag}=/tmp/caf\udce9")
    subject = flag if flag == "--workdir" else flag.removeprefix("--")
    assert message.startswith(f"{subject} = '/tmp/caf\\udce9': ")
    assert "UTF-8" in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("given", ["--flagfile={}", "-flagfile={}", "--flagfile {}"])
def test_flags_of_a_file_stand_in_its_place(tmp_path, encoding, given):
    path, other = tmp_path / "flags", tmp_path / "more"
    text = f"--a=é\u2028x \r\n# no\r\n// no\r\n\r\n--flagfile={other}\r\n--c\r\nd\r\n \r\n"
    path.write_bytes(text.encode(encoding))
    other.write_text(f"--b=2\n--flagfile={path}\n")  # which is being read
    argv = ["--z", *given.format(path).split(" "), "e"]
    assert expand_flag_files(argv) == ["--z", "--a=é\u2028x", "--b=2", "--c", "d", "e"]


def test_words_after_two_dashes_are_no_flags():
    assert expand_flag_files(["a", "--", "--flagfile=gone"]) == ["a", "--", "--flagfile=gone"]
    assert expand_flag_files(["--flagfile"]) == ["--flagfile"]


@pytest.mark.parametrize("path", ["gone", "", "a\0b"])
def test_a_file_that_cannot_be_read_is_one_error(path):
    with pytest.raises(UserError, match="--flagfile = .*"):
        expand_flag_files([f"--flagfile={path}"])


def test_words_of_a_command_line_are_neither_flags_nor_their_values():
    values = flags.FlagValues()
    flags.DEFINE_boolean("serve", False, "", flag_values=values)
    flags.DEFINE_string("method", None, "", flag_values=values)
    line = ["a", "--serve", "b", "--method", "c", "--method=d", "e", "--noserve", "f"]
    assert arguments.words_of(values, line) == ["a", "b", "e", "f"]
    line = ["--config.data.root", "a", "-serve", "b", "--", "--method", "c"]
    assert arguments.words_of(values, line) == ["b", "--method", "c"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("--config.eval.methods=global,local+sp", "--config.eval.methods=('global', 'local+sp')"),
        ("--config.eval.methods=global", "--config.eval.methods=('global',)"),
        ("--config.eval.methods=('a',)", "--config.eval.methods=('a',)"),
        ("--config.eval.kappas=1, 5", "--config.eval.kappas=(1, 5)"),
        ("--config.train.resume_with=a,b", "--config.train.resume_with=a,b"),  # a text
        ("--config.no.field=a,b", "--config.no.field=a,b"),
        ("--methods=a,b", "--methods=a,b"),
    ],
)
def test_fields_that_are_tuples_take_words(given, taken):
    assert arguments.with_tuples([given]) == [taken]
    name, _, value = given.partition("=")
    assert arguments.with_tuples([name, value, "x"]) == [name, taken.partition("=")[2], "x"]


def test_all_fields_are_printed_as_flags_that_give_the_same(called, tmp_path, capsys):
    assert main(["train", CONFIG, "--print_config", "--config.seed=7"]) == 0  # without a workdir
    text = capsys.readouterr().out
    assert "--config.seed=7" in text.splitlines()
    (tmp_path / "flags").write_text(text)
    assert main(["train", CONFIG, f"--flagfile={tmp_path / 'flags'}", "--print_config"]) == 0
    assert capsys.readouterr().out == text
    assert called == []
