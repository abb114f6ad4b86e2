import pytest

from delg_jax.cli.arguments import expand_flag_files
from delg_jax.errors import UserError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("given", ["--flagfile={}", "-flagfile={}", "--flagfile {}"])
def test_flags_of_a_file_stand_in_its_place(tmp_path, encoding, given):
    path, other = tmp_path / "flags", tmp_path / "more"
    text = f"--a=é\u2028x \r\n# no\r\n// no\r\n\r\n--flagfile={other}\r\n--c\r\nd\r\n \r\n"
    path.write_bytes(text.encode(encoding))
    other.write_text(f"--b=2\n--flagfile={path}\n")  # which is being read
    argv = ["--z", *given.format(path).split(" "), "e"]
    assert expand_flag_files(argv) == ["--z", "--a=é\u2028x", "--b=2", "--c", "d", "e"]


def test_what_stands_behind_two_dashes_is_no_flag():
    assert expand_flag_files(["a", "--", "--flagfile=gone"]) == ["a", "--", "--flagfile=gone"]
    assert expand_flag_files(["--flagfile"]) == ["--flagfile"]


@pytest.mark.parametrize("path", ["gone", "", "a\0b"])
def test_a_file_that_cannot_be_read_is_one_error(path):
    with pytest.raises(UserError, match="--flagfile = .*: must be a readable text file of flags"):
        expand_flag_files([f"--flagfile={path}"])
