r"""Names of files as text, whatever their bytes are: the one rule for all verbs.

Linux allows any bytes in a name. Everywhere in this package a name is text that UTF-8 can hold:
bytes that are not UTF-8 stand as `\xNN`, as in `caf\xe9.jpg`, whatever the locale is. So names can
be stored, compared and printed by every verb, and are written so in lists and ground truth, too.
"""

import os
import pathlib
import re

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def to_text(name: str) -> str:
    r"""A name that the system gave as text; bytes that are not UTF-8 become `\xNN`.

    Args:
      name: as `os.scandir`, `sys.argv` or `tarfile` give it, odd bytes as lone surrogates.

    Returns:
      Text that UTF-8 can hold.
    """
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # the locale cannot hold it: it is text already, or half a pair
        return name.encode("utf-8", "backslashreplace").decode()


def to_path(folder: str | os.PathLike[str], name: str) -> pathlib.Path:
    r"""The file that a text of `to_text` names.

    Args:
      folder: that the name is relative to.
      name: the text.

    Returns:
      The path. A file whose name really holds a backslash, x and two digits comes first.
    """
    given = name.encode("utf-8", "surrogateescape")
    path = pathlib.Path(folder, os.fsdecode(given))
    if b"\\x" in given and not os.path.lexists(path):
        return pathlib.Path(folder, os.fsdecode(_ESCAPED.sub(_byte, given)))
    return path


def printable(text: str) -> str:
    r"""Text of others for terminals, logs and tables: what is not printed becomes as in `\\x1b`.

    Such are line breaks, the sequences that colour or move, and marks that turn the direction.
    """
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)])
