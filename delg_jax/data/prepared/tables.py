"""Csv files: read with the line of every mistake, written whole or not at all."""

import csv
import pathlib
import re
from collections.abc import Iterable, Iterator

from delg_jax import workdir
from delg_jax.errors import UserError

_LARGEST_FIELD = 2**27  # characters; the images of a landmark of train_clean.csv exceed csv's own
_NAME = re.compile(r"[0-9A-Za-z_-]{3,}")


class Row:
    """Chosen fields of one line.

    Args:
      path: of the file.
      line: number of the line, from 1.
      fields: text by column.
    """

    def __init__(self, path: pathlib.Path, line: int, fields: dict[str, str]) -> None:
        self._path, self._line, self._fields = path, line, fields

    def text(self, column: str, default: str | None = None) -> str:
        """The field as it stands; `default`, if there is one, where the column is absent."""
        return self._fields[column] if default is None else self._fields.get(column, default)

    def integer(self, column: str) -> int:
        """The field as a whole number that is not negative; a UserError if it is none."""
        text = self._fields[column]
        if not (text.isascii() and text.isdigit()):
            raise self.error(f"{column} must be a whole number, not {text!r}")
        return int(text)

    def name(self, column: str) -> str:
        """The field as the id of an image; a UserError if it could not be part of a file name."""
        return self.names(column, single=True)[0]

    def names(self, column: str, single: bool = False) -> list[str]:
        """The field as ids with spaces between them; a UserError if one is none."""
        names = [self._fields[column]] if single else self._fields[column].split()
        for name in names:
            if not _NAME.fullmatch(name):
                rule = f"{column} must be 3 or more of letters, digits, _ and -, not {name!r}"
                raise self.error(rule)
        return names

    def error(self, rule: str) -> UserError:
        """A UserError that names the file and the line."""
        return UserError("csv file", f"{self._path}, line {self._line}", rule)


def read(path: pathlib.Path, columns: tuple[str, ...], key: str = "") -> Iterator[Row]:
    """Reads a csv file whose first line names its columns.

    Args:
      path: of the file.
      columns: that must be there; others are passed over.
      key: column whose fields must all differ ("" = none).

    Yields:
      A `Row` for each line after the first.

    Raises:
      UserError: if the file is absent, is no csv file in UTF-8, lacks a column, has a line with
        fewer or more fields than the first, or repeats a key.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from _rows(path, csv.reader(file, strict=True), columns, key)
    except OSError as error:
        raise UserError("csv file", str(path), f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError("csv file", str(path), "must be text in UTF-8") from error


def write(path: pathlib.Path, columns: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Writes a csv file of columns and rows, whole or not at all."""
    with (
        workdir.replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _rows(path: pathlib.Path, reader, columns: tuple[str, ...], key: str) -> Iterator[Row]:
    header: list[str] = []
    seen: dict[str, int] = {}
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise Row(path, reader.line_num, {}).error(f"is no csv ({error})") from error
        if fields is None:
            break
        if not header:
            header = fields
            absent = [name for name in columns if name not in header]
            if absent:
                rule = f"must name the columns {', '.join(columns)}; {absent[0]} is absent"
                raise Row(path, 1, {}).error(rule)
            continue
        row = Row(path, reader.line_num, dict(zip(header, fields, strict=False)))
        if len(fields) != len(header):
            raise row.error(f"must have {len(header)} fields, not {len(fields)}")
        if key and seen.setdefault(row.text(key), reader.line_num) != reader.line_num:
            raise row.error(f"{key} {row.text(key)!r} stands in line {seen[row.text(key)]} too")
        yield row
    if not header:
        raise UserError("csv file", str(path), "must not be empty")
