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


@pytest.mark.slow  # compiles ResNet-18 for a few shapes
def test_extraction_comes_with_its_rate_and_share_of_the_peak(capsys, tmp_path):
    pytest.importorskip("torch", reason="the peer of extraction")
    output = tmp_path / "extract.json"
    arguments = ["extract_r18_3", "--size=tiny", "--repeats=1", f"--output={output}"]
    assert main(["bench", *arguments]) == 0
    result = json.loads(output.read_text())
    counted = result["operations"]
    assert counted["per_second"] == counted["per_unit"] / result["ours"]["median"]
    assert 0 < counted["share"] == counted["per_second"] / counted["peak"]
    lines = capsys.readouterr().out.splitlines()
    assert "ms/image" in lines[0]
    assert lines[-1].startswith("images a second: ")
    assert lines[-1].endswith("% of the peak of matrix products")


@pytest.mark.parametrize(
    "arguments", [[], ["waltz"], ["mds", "global"], ["mds", "--size=huge"], ["mds", "--repeats=0"]]
)
def test_mistakes_are_refused(capsys, arguments):
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
