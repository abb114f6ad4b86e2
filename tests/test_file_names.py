import os
import subprocess
import sys

import pytest

from delg_jax import file_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a b.jpg", "a b.jpg"),
        ("é\u2028.jpg".encode(), "é\u2028.jpg"),
        (b"caf\xe9/\xff\xc3.jpg", "caf\\xe9/\\xff\\xc3.jpg"),
        ("é".encode() + b"\xe9", "é\\xe9"),
        (b"back\\slash\\x41", "back\\slash\\x41"),
    ],
)
def test_a_name_survives_the_conversion_to_text(tmp_path, name, text):
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name)
    found = file_names.to_text(os.fsdecode(name))
    assert found == text
    assert found.encode().decode() == text
    assert file_names.to_path(tmp_path, found).read_bytes() == name


def test_a_name_that_looks_escaped_comes_first(tmp_path):
    (tmp_path / "caf\\xe9").write_text("as it stands")
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("escaped")
    assert file_names.to_path(tmp_path, "caf\\xe9").read_text() == "as it stands"
    (tmp_path / "caf\\xe9").unlink()
    assert file_names.to_path(tmp_path, "caf\\xe9").read_text() == "escaped"


def test_an_absent_file_keeps_its_name(tmp_path):
    assert file_names.to_path(tmp_path, "gone") == tmp_path / "gone"


def test_half_a_pair_is_escaped():
    assert file_names.to_text("a\ud800b") == "a\\ud800b"


def test_names_do_not_depend_on_the_locale(tmp_path):
    for name in ("é.jpg".encode(), b"caf\xe9.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    program = (
        "import os, sys; from delg_jax import file_names as f\n"
        "texts = sorted(f.to_text(name) for name in os.listdir(sys.argv[1]))\n"
        "print(ascii(texts), [ascii(f.to_path(sys.argv[1], t).read_bytes()) for t in texts])"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for changes in ({}, ascii_only):
        run = subprocess.run(
            [sys.executable, "-c", program, tmp_path],
            env={**os.environ, **changes},
            capture_output=True,
            text=True,
            check=True,
        )
        expected = (
            "['caf\\\\xe9.jpg', '\\xe9.jpg'] [\"b'caf\\\\xe9.jpg'\", \"b'\\\\xc3\\\\xa9.jpg'\"]"
        )
        assert run.stdout.strip() == expected
