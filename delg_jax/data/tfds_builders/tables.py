"""CSV files: mistakes are reported with their line; files are written whole or not at all."""

import csv
import pathlib
import re
from collections.abc import Iterable, Iterator

from delg_jax import text_files, workdir
from delg_jax.errors import UserError

_NAME = re.compile(r"[0-9A-Za-z_-]{3,}")


class Row:
    """The fields of one line.

    Args:
      path: of the file.
      line: number of the line, from 1.
      fields: text by column.
    """

    def __init__(self, path: pathlib.Path, line: int, fields: dict[str, str]) -> None:
        self._path, self._line, self._fields = path, line, fields

    def text(self, column: str, default: str | None = None) -> str:
        """The field, unchanged; `default`, if given, without such a column."""
        return self._fields[column] if default is None else self._fields.get(column, default)

    def word(self, column: str) -> str:
        """The field without spaces around it."""
        return self._fields[column].strip()

    def integer(self, column: str) -> int:
        """The field as a whole number, not negative; otherwise a UserError."""
        text = self.word(column)
        if not (text.isascii() and text.isdigit()):
            raise self.error(f"{column} must be a whole number, not {text!r}")
        return int(text)

    def name(self, column: str) -> str:
        """The field as an image id; a UserError if it cannot be part of a file name."""
        return self.names(column, single=True)[0]

    def names(self, column: str, single: bool = False) -> list[str]:
        """The field as image ids separated by spaces; a UserError for a wrong one."""
        names = [self.word(column)] if single else self._fields[column].split()
        for name in names:
            if not _NAME.fullmatch(name):
                rule = f"{column} must be 3 or more of letters, digits, _ and -, not {name!r}"
                raise self.error(rule)
        return names

    def error(self, rule: str) -> UserError:
        """A UserError that names the file and the line."""
        return UserError("csv file", f"{self._path}, line {self._line}", rule)


def read(path: pathlib.Path, columns: tuple[str, ...], key: str = "") -> Iterator[Row]:
    """Reads a csv file whose first line names its columns, as `text_files.csv_rows` does.

    Args:
      path: of the file.
      columns: required ones; others are ignored.
      key: column whose fields must all differ ("" = none).

    Yields:
      A `Row` for each line after the first.

    Raises:
      UserError: if the file is missing or not CSV, lacks a column, has a line with fewer or more
        fields than the first, or repeats a key.
    """
    header: list[str] = []
    seen: dict[str, int] = {}
    for line, fields in text_files.csv_rows(path, "csv file"):
        if not header:
            header = [field.strip() for field in fields]
            _require_columns(Row(path, line, {}), header, columns)
            continue
        row = Row(path, line, dict(zip(header, fields, strict=False)))
        if len(fields) != len(header):
            raise row.error(f"must have {len(header)} fields, not {len(fields)}")
        if key and seen.setdefault(row.word(key), line) != line:
            raise row.error(f"{key} {row.word(key)!r} is also in line {seen[row.word(key)]}")
        yield row
    if not header:
        raise UserError("csv file", str(path), "must not be empty")


def write(path: pathlib.Path, columns: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Writes a csv file of columns and rows, whole or not at all."""
    with (
        workdir.replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _require_columns(first: Row, header: list[str], columns: tuple[str, ...]) -> None:
    absent = [name for name in columns if name not in header]
    if not absent:
        return
    rule = f"must name the columns {', '.join(columns)}; {absent[0]} is missing"
    for mark in ";\t":
        if len(header) == 1 and mark in header[0]:
            rule += f"; separate fields by commas, not {mark!r}"
    raise first.error(rule)
