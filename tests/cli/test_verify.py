import pathlib
import re

import pytest

from delg_jax.cli.main import main
from tests.folders import contents
from tests.photographs import draw, save
from tests.stores import features, fill
from tests.tiny import command_line, retrieval_config


@pytest.fixture
def store(tmp_path, rng):
    return fill(tmp_path / "store", [features(rng, count) for count in (3, 0, 5, 1, 4)])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def verify(capsys, *argv, status=0):
    """Lines on stdout, and the one of the program on stderr without its prefix."""
    assert main(["verify", *map(str, argv)]) == status
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    lines = [line.removeprefix("delg: ") for line in err.splitlines() if line.startswith("delg: ")]
    assert len(lines) == (status != 0)
    return out.splitlines(), lines[0] if lines else ""


def test_an_intact_store(store, capsys):
    before = contents(store.folder)
    for flags in ((), ("--repair",)):
        lines, _ = verify(capsys, store.folder, *flags)
        assert lines == [f"{store.folder}: 5 images, no damaged chunks"]
    assert contents(store.folder) == before


def test_damaged_files_are_named(store, capsys):
    flip(store.folder / "scores" / "c.1.0")
    (store.folder / "global" / "c.0.0").unlink()
    before = contents(store.folder)
    lines, error = verify(capsys, store.folder, status=2)
    assert re.match(f"feature store = '{store.folder}': .*2 damaged chunks; --repair", error)
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{store.folder}/global/c.0.0", "global of rows 0 to 2"],
        [f"{store.folder}/scores/c.1.0", "scores of rows 3 to 4"],
    ]
    assert contents(store.folder) == before


def test_a_damaged_description_is_one_line(store, capsys):
    (store.folder / "global" / "zarr.json").write_text("{")
    for flags in ((), ("--repair",)):
        lines, error = verify(capsys, store.folder, *flags, status=2)
        assert lines == []
        assert error.startswith(f"feature store = '{store.folder}/global/zarr.json': ")
        assert len(error.splitlines()) == 1


def test_names_are_not_repaired(store, capsys):
    path = store.folder / "names_64" / "c.0.0"
    flip(path)
    before = contents(store.folder)
    lines, error = verify(capsys, store.folder, "--repair", status=2)
    assert lines[0].startswith(f"{path}: names_64 of rows 0 to 4: ")
    assert re.match(f"feature store = '{path}': .*--overwrite", error)
    assert contents(store.folder) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "delg verify = '': "),
        (["one", "two"], "delg verify = 'one two': "),
        (["/no/such/folder"], "feature store = '/no/such/folder': "),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, named):
    assert verify(capsys, *arguments, status=2)[1].startswith(named)


def test_a_repaired_store_is_extracted_to_the_same_bytes(tmp_path, capsys):
    for number in range(7):
        save(tmp_path / "photos" / f"{number}.jpg", draw(number, 64, 64))
    config = retrieval_config(tmp_path).copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    flags = [*command_line(config), f"--workdir={tmp_path}", f"--images={tmp_path / 'photos'}"]
    assert main(["extract", *flags]) == 0
    folder = pathlib.Path(tmp_path, "features", "images")
    before = contents(folder)
    flip(folder / "descriptors" / "c.1.0.0")
    flip(folder / "state" / "c.2")
    capsys.readouterr()
    lines, _ = verify(capsys, folder, "--repair")
    assert lines[-1] == f"{folder}: 4 images to extract again, by delg extract"
    message = verify(capsys, folder, status=2)[1]
    assert "resume" in message
    assert main(["extract", *flags]) == 0
    assert contents(folder) == before
    assert verify(capsys, folder)[0][-1].endswith("7 images, no damaged chunks")
