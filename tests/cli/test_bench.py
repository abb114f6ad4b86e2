import json

import pytest

from delg_jax.cli.main import main


def test_a_table_is_printed_and_the_numbers_are_written(capsys, tmp_path):
    output = tmp_path / "mds.json"
    assert main(["bench", "mds", "--size=tiny", "--repeats=2", f"--output={output}"]) == 0
    header, _, ours, peer = capsys.readouterr().out.splitlines()
    assert "ms/short list" in header
    assert "classical_mds" in ours
    assert "1.00" in peer
    assert json.loads(output.read_text())["repeats"] == 2


@pytest.mark.parametrize(
    "arguments", [[], ["waltz"], ["mds", "global"], ["mds", "--size=huge"], ["mds", "--repeats=0"]]
)
def test_mistakes_are_refused(capsys, arguments):
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
