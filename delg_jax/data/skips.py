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


@dataclasses.dataclass(frozen=True)
class SkipLog:
    """A list that several processes append to.

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
    """Lists skipped images in `skipped.csv` and refuses to go on if there are too many.

    Args:
      folder: where `skipped.csv` goes; an empty list removes it.
      skipped: reasons by name.
      limit: `config.data.max_skipped`.

    Raises:
      UserError: if there are more than `limit`.
    """
    path = folder / "skipped.csv"
    if not skipped:
        if path.is_file():  # of what is not there, a read-only file system would refuse it
            path.unlink()
        return
    workdir.write_text(path, _rows([("image", "reason"), *sorted(skipped.items())]))
    name, reason = next(iter(sorted(skipped.items())))
    _LOG.warning("%d images skipped, listed in %s", len(skipped), path)
    if len(skipped) > limit:
        rule = f"{len(skipped)} images could not be used, first {name} ({reason}); see {path}"
        raise UserError("config.data.max_skipped", limit, rule)


def _rows(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # a reason of the system may quote a path of odd bytes
    return text.getvalue().encode("utf-8", "backslashreplace").decode()
