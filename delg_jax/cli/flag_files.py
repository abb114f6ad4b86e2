"""Flags that are read from a file, `--flagfile=PATH`, in any text that `text_files` reads."""

import pathlib
from collections.abc import Sequence

from delg_jax import text_files
from delg_jax.errors import UserError

_SUBJECT = "--flagfile"
_COMMENTS = ("#", "//")


def expanded(argv: Sequence[str], above: tuple[str, ...] = ()) -> list[str]:
    """A command line with the flags of files in the place of each `--flagfile`.

    Args:
      argv: the command line.
      above: files that are being read, which are not read again.

    Returns:
      The command line without `--flagfile`. In a file each line is a word of it; blank lines and
      those that begin with # or // do not count.

    Raises:
      UserError: for a file that cannot be read, or is no text.
    """
    words, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name != "flagfile" or not (equals or rest):
            words.append(word)
            continue
        path = value if equals else rest.pop(0)
        if path not in above:
            words += expanded(_words(path), (*above, path))
    return words


def _words(path: str) -> list[str]:
    try:
        text = text_files.read(pathlib.Path(path), _SUBJECT)
    except (UserError, ValueError) as error:  # the latter for a name that no system takes
        raise UserError(_SUBJECT, path, "must be a readable text file of flags") from error
    return [line for _, line in text_files.lines(text) if not line.startswith(_COMMENTS)]
