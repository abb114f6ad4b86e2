"""The one reader of text that users write: lists, csv and JSON, as editors save them.

Text is UTF-8, with or without a byte order mark, or UTF-16 with one. A line ends with a line feed,
a carriage return or both, and nowhere else: U+2028, U+0085 and form feeds are ordinary characters.
Spaces and tabs around a line do not count, nor do lines without anything else.
"""

import codecs
import csv
import io
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from delg_jax import file_names, json_files
from delg_jax.errors import UserError

_LINE = re.compile(r"\r\n|\n|\r")
_SURROGATE = re.compile(r"\\ud[c-f]", re.IGNORECASE)  # of a pair, or alone
_BLANK = " \t"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LONGEST_MARK = 3  # bytes
_LARGEST_FIELD = 2**27  # characters; the images of a landmark of train_clean.csv exceed csv's own


def read(path: pathlib.Path, subject: str) -> str:
    """Reads a whole text file.

    Args:
      path: of the file.
      subject: the flag or field it was given to, for errors.

    Returns:
      Its text without a byte order mark; lines end as they do in the file.

    Raises:
      UserError: if the file cannot be read, or is not text.
    """
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise UserError(subject, str(path), f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(subject, str(path), str(error)) from error


def decode(data: bytes) -> str:
    """The text of a file whose bytes are there; a ValueError with the rule if it is not text."""
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(_LINE.findall(data[: error.start].decode("latin1"))) + 1
        rule = f"must be text in {_title(encoding)}, which its byte {error.start}, in line {line},"
        raise ValueError(f"{rule} is not; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("must be text, and has a zero byte; if it is UTF-16, save it as UTF-8")
    return text


def encoding_of(data: bytes) -> str:
    """The encoding that a byte order mark at the start of the bytes declares; else UTF-8."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that holds more than spaces and tabs."""
    for number, line in enumerate(_LINE.split(text), start=1):
        if stripped := line.strip(_BLANK):
            yield number, stripped


def read_json(
    path: pathlib.Path,
    subject: str,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Reads a JSON file.

    Args:
      path: of the file.
      subject: the flag or field it was given to, for errors.
      object_pairs_hook: of `json.loads`.

    Returns:
      Its content.

    Raises:
      UserError: if the file cannot be read, or is not JSON, with the line and column.
    """
    try:
        return parse_json(path.read_bytes(), object_pairs_hook)
    except OSError as error:
        raise UserError(subject, str(path), f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(subject, str(path), f"must be a JSON file: {error}") from error


def parse_json(data: bytes, object_pairs_hook: Callable[..., Any] | None = None) -> Any:
    r"""The content of a JSON file whose bytes are there; a ValueError if it is not JSON.

    Names of odd bytes, which Python writes as `"caf\udce9.jpg"`, become as `file_names` says.
    """
    text = decode(data)
    content = json_files.shallow(json.loads(text, object_pairs_hook=object_pairs_hook))
    return _without_surrogates(content) if _SURROGATE.search(text) else content


def _without_surrogates(content: Any) -> Any:
    if isinstance(content, str):
        return file_names.to_text(content)
    if isinstance(content, list):
        return [_without_surrogates(value) for value in content]
    if isinstance(content, dict):
        return {file_names.to_text(k): _without_surrogates(v) for k, v in content.items()}
    return content


def csv_rows(path: pathlib.Path, subject: str) -> Iterator[tuple[int, list[str]]]:
    """Reads a csv file row by row, so that one of millions of rows takes little memory.

    Rows of empty fields, as spreadsheets leave them at the end, do not count. Fields are as they
    stand.

    Args:
      path: of the file.
      subject: what the file is, for errors.

    Yields:
      Number of the last line of a row, from 1, and its fields.

    Raises:
      UserError: if the file cannot be read, is not text, or is not csv, with the line.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    try:
        with path.open("rb") as data:
            encoding = encoding_of(data.read(_LONGEST_MARK))
            data.seek(0)
            with io.TextIOWrapper(data, encoding=encoding, newline="") as file:
                reader = csv.reader(file, strict=True)
                yield from _rows(reader, path, subject)
    except OSError as error:
        raise UserError(subject, str(path), f"cannot be read ({error.strerror})") from error
    except UnicodeError as error:
        rule = f"must be text in {_title(encoding)}; save it as UTF-8"
        raise UserError(subject, str(path), rule) from error


def _rows(reader: Any, path: pathlib.Path, subject: str) -> Iterator[tuple[int, list[str]]]:
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            rule = f"is no csv ({error})"
            raise UserError(subject, f"{path}, line {reader.line_num}", rule) from error
        if fields is None:
            return
        if any(field.strip(_BLANK) for field in fields):
            yield reader.line_num, fields


def _title(encoding: str) -> str:
    return "UTF-16" if encoding == "utf-16" else "UTF-8"
