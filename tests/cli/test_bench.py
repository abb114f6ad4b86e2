import json

import pytest

from delg_jax import workdir
from delg_jax.cli.main import main


def bench(output, name="mds"):
    arguments = [name, "--size=tiny", "--repeats=2", "--peers=numpy", f"--output={output}"]
    return main(["bench", *arguments])


def test_a_table_is_printed_and_the_numbers_are_written(capsys, tmp_path):
    assert bench(tmp_path / "mds.json") == 0
    header, _, ours, *others, roofline = capsys.readouterr().out.splitlines()
    assert "ms/query" in header
    assert "classical MDS" in ours
    assert "NumPy" in others[-1]
    assert "ours reaches" in roofline
    assert json.loads((tmp_path / "mds.json").read_text())["repeats"] == 2


def test_two_files_are_compared(capsys, tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert bench(old) == 0
    capsys.readouterr()
    assert main(["bench", "--compare", str(old), str(old)]) == 0
    assert "nothing changed" in capsys.readouterr().out
    result = json.loads(old.read_text())
    result["implementations"][0]["median"] *= 1000
    workdir.write_json(new, result)
    with pytest.raises(SystemExit) as status:
        main(["bench", "--compare", str(old), str(new)])
    assert status.value.code == 1
    assert "1000" in capsys.readouterr().out
    assert main(["bench", "--compare", str(new), str(old)]) == 0


@pytest.mark.parametrize(
    ("content", "word"), [(None, "file"), ("{", "JSON"), ("{}", "name"), ("[]", "object")]
)
def test_files_that_cannot_be_compared(capsys, tmp_path, content, word):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert main(["bench", "--compare", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}': " in error
    assert word in error.partition(f"{path}': ")[2]
    assert error.count("\n") == 1


def test_only_the_same_benchmark_is_compared(capsys, tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    common = {"unit": "query", "implementations": []}
    old.write_text(json.dumps({"name": "mds", "size": {"n": 1}, **common}))
    new.write_text(json.dumps({"name": "mds", "size": {"n": 2}, **common}))
    assert main(["bench", "--compare", str(old), str(new)]) == 2
    assert "size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["waltz"],
        ["mds", "global"],
        ["mds", "--size=huge"],
        ["mds", "--repeats=0"],
        ["mds", "--peers=waltz"],
        ["--compare", "a.json"],
    ],
)
def test_mistakes_are_refused(capsys, arguments):
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
