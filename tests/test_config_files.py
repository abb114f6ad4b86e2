import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs import default, quickstart
from delg_jax import config_files, configuration
from delg_jax.errors import UserError

ROOT = Path(config_files.__file__).resolve().parents[1]
MINE = """from configs import default
import base
def get_config(size="small"):
    config = default.get_config()
    config.seed = base.SEED
    config.data.ground_truth = size
    return config
"""


def write(folder, **texts):
    """Writes a Python file for each name; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_file_finds_our_configs_and_the_files_beside_it_from_anywhere(tmp_path, monkeypatch):
    folder = write(tmp_path / "mine", small=MINE, base="SEED = 7")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    config = configuration.load("../mine/small.py")
    assert (config.seed, config.data.ground_truth) == (7, "small")
    assert configuration.load(folder / "small.py", "big").data.ground_truth == "big"


def test_two_folders_may_have_files_of_one_name(tmp_path):
    found = []
    for seed in (7, 8):
        folder = write(tmp_path / str(seed), mine=MINE, base=f"SEED = {seed}")
        found.append(configuration.load(folder / "mine.py").seed)
    assert found == [7, 8]


def test_a_file_that_was_changed_is_read_again(tmp_path):
    folder = write(tmp_path, mine=MINE, base="SEED = 7")
    assert configuration.load(folder / "mine.py").seed == 7
    write(tmp_path, base="SEED = 8")  # of the same size, within the same second
    assert configuration.load(folder / "mine.py").seed == 8
    assert not (folder / "__pycache__").exists()


def test_nothing_is_left_behind(tmp_path):
    more = "from mine import more\nimport base\nimport wave\nimport package.part\n"
    folder = write(tmp_path / "mine", small=more + MINE, base="SEED = 7", more="")
    write(folder / "package", part="")
    modules, path, ours = set(sys.modules), list(sys.path), sys.modules["configs.default"]
    configuration.load(folder / "small.py")
    assert set(sys.modules) - modules <= {"wave"}
    assert sys.path == path
    assert sys.modules["configs.default"] is ours is default
    assert config_files.__name__ in sys.modules


def test_a_module_of_the_program_is_not_taken_for_the_file_beside(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "base", default)
    folder = write(tmp_path, mine=MINE, base="SEED = 7", json="", delg_jax="")
    assert configuration.load(folder / "mine.py").seed == 7
    assert sys.modules["base"] is default


def test_users_may_have_a_folder_called_configs(tmp_path):
    project = tmp_path / "configs"
    text = "from configs import base, default\nfrom configs.quickstart import get_config as quick\n"
    text += "def get_config():\n  c = quick('smoke')\n  c.seed = base.SEED\n  return c\n"
    write(project, base="SEED = 5")
    write(project / "oxford", mine=text)
    write(tmp_path, mine=text)
    expected = configuration.override(quickstart.get_config("smoke"), {"seed": 5})
    for path in (project / "oxford" / "mine.py", tmp_path / "mine.py"):
        assert configuration.load(path) == expected


def test_ours_have_names():
    assert configuration.load("quickstart", "smoke") == quickstart.get_config("smoke").lock()
    with pytest.raises(UserError, match="--config = 'quikstart': .*default, .*quickstart"):
        configuration.load("quikstart")


def test_a_wheel_needs_no_clone(tmp_path):
    site = tmp_path / "site"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "delg_jax", site / "delg_jax", ignore=leave)
    shutil.copytree(ROOT / "configs", site / "delg_jax" / "configs", ignore=leave)
    write(tmp_path / "mine", small=MINE, base="SEED = 7")
    program = "from delg_jax import configuration as c\n"
    program += (
        "print(c.__file__, c.load('../mine/small.py').seed, c.load('quickstart').train.steps)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "mine",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    steps = quickstart.get_config().train.steps
    assert said == [str(site / "delg_jax" / "configuration.py"), "7", str(steps)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x = 1\ndef get_config(:", "{mine}, line 2: SyntaxError: "),
        ("import no_such", "{mine}, line 1: ModuleNotFoundError: .*'no_such'"),
        ("def get_config():\n  return 1 / 0", "{mine}, line 2: ZeroDivisionError: "),
        ("import sys\nsys.exit('no')", "{mine}, line 2: SystemExit: no"),
        ("import broken", "{broken}, line 3: SyntaxError: "),
        ("\nimport worse", "{worse}, line 1: NameError: .*'nothing'"),
        ("from configs import nothing", "{mine}, line 1: ImportError: .*'nothing'"),
        ("raise ValueError('two\\nlines')", "{mine}, line 1: ValueError: two lines"),
        ("seed = 1", "get_config"),
        ("get_config = 3", "get_config"),
        ("def get_config(): pass", "get_config .*ConfigDict, .*None"),
        ("def get_config(a): return {'seed': 1}", "get_config .*ConfigDict, .*dict"),
        ("def get_config(a, b): return 1", "TypeError: get_config"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path, text, names):
    folder = write(tmp_path, mine=text, broken="\n\nx = (", worse="nothing")
    places = {name: str(folder / f"{name}.py") for name in ("mine", "broken", "worse")}
    expected = rf"^--config = '{folder / 'mine.py'}': .*{names.format(**places)}"
    with pytest.raises(UserError, match=expected) as caught:
        configuration.load(folder / "mine.py")
    assert "\n" not in str(caught.value)


def test_invalid_text_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_bytes(b"x = '\xff'\0")
    with pytest.raises(UserError, match="--config = .*mine.py'"):
        configuration.load(tmp_path / "mine.py")


def test_an_argument_is_refused_where_none_is_taken(tmp_path):
    write(tmp_path, mine="def get_config(): return 1")
    with pytest.raises(UserError, match="--config argument = 'fast'"):
        configuration.load(tmp_path / "mine.py", "fast")
