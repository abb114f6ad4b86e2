"""Bad images inside a long run: skipped, listed with the reason, an error if there are too many."""

import csv
import dataclasses
import io
import logging
import os
import pathlib

from delg_jax import workdir
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)

_FILE, _COLUMNS = "skipped.csv", ("image", "reason")


@dataclasses.dataclass(frozen=True)
class SkipLog:
    """A list of skipped images to which several processes append.

    Attributes:
      path: of the file, one csv row per event; an image may occur more than once.
    """

    path: pathlib.Path

    def add(self, name: str, reason: str) -> None:
        """Appends one image; the single write keeps rows of several processes apart."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, _rows([(name, reason)]).encode())
        finally:
            os.close(handle)

    def read(self) -> dict[str, str]:
        """Reasons by name."""
        if not self.path.is_file():
            return {}
        with self.path.open(newline="", encoding="utf-8") as file:
            return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}


def report(folder: pathlib.Path, skipped: dict[str, str], limit: int) -> None:
    """Lists skipped images in `skipped.csv` and raises an error if there are too many.

    A list in a read-only folder is left as it is.

    Args:
      folder: where `skipped.csv` goes; an empty list removes it.
      skipped: reasons by name.
      limit: `config.data.max_skipped`.

    Raises:
      UserError: if there are more than `limit`.
    """
    path = folder / _FILE
    rows = _rows([_COLUMNS, *sorted(skipped.items())]) if skipped else ""
    listed = _is(path, rows) or _written(path, rows)
    if not skipped:
        return
    name, reason = next(iter(sorted(skipped.items())))
    where = f"listed in {path}" if listed else f"first {name} ({reason})"
    _LOG.warning("%d images skipped, %s", len(skipped), where)
    if len(skipped) > limit:
        rule = f"{len(skipped)} images could not be used, first {name} ({reason})"
        rule += f"; see {path}" if listed else ""
        raise UserError("config.data.max_skipped", limit, rule)


def read(folder: pathlib.Path) -> dict[str, str]:
    """Reasons by name of the images that `report` listed in a folder; none if there is no list."""
    listed = SkipLog(folder / _FILE).read()
    listed.pop(_COLUMNS[0], None)
    return listed


def _is(path: pathlib.Path, rows: str) -> bool:
    """Whether a list is there already; an empty one is no file."""
    try:
        return path.read_bytes() == rows.encode() if rows else not path.exists()
    except OSError:
        return False


def _written(path: pathlib.Path, rows: str) -> bool:
    """Writes a list, or deletes it if it is empty; False where nothing can be written."""
    try:
        if rows:
            workdir.write_text(path, rows)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in workdir.READ_ONLY:
            raise
        return False
    return True


def _rows(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # a reason of the system may quote a path of odd bytes
    return text.getvalue().encode("utf-8", "backslashreplace").decode()
