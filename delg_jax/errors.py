"""The one exception for what a user can mend: a field or file, its value, the rule it breaks."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from delg_jax import migrations


class UserError(Exception):
    """A mistake in the configuration, the command line or an input file.

    The command line prints it as one line and exits with status 2.

    Args:
      subject: the field or file, for example `config.data.root`.
      value: its value.
      rule: what it must be, as a sentence without a subject ("must be an existing folder").
    """

    def __init__(self, subject: str, value: object, rule: str) -> None:
        # One line, also with names of files and texts of libraries that have several
        super().__init__(" ".join(f"{subject} = {value!r}: {rule}".splitlines()))
        self.subject = subject
        self.value = value
        self.rule = rule


class WrongField(ValueError):
    """A field of a class of settings that has a wrong value.

    Args:
      field: its name.
      value: its value.
      rule: what it must be, as of `UserError`.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"`{field}` (={value!r}) {rule}")
        self.field = field
        self.rule = rule


@contextlib.contextmanager
def fields_of(section: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Lets a wrong field be that of a section of the configuration.

    Args:
      section: for example `config.rerank.sp`.
      given: values by field, as the user gave them.

    Raises:
      UserError: that names the one field, for a `WrongField` within the block.
    """
    try:
        yield
    except WrongField as error:
        field = error.field
        raise UserError(f"{section}.{field}", given[field], error.rule) from error


def require_choice(subject: str, value: str, choices: "tuple[str, ...] | list[str]") -> None:
    """Raises a UserError unless `value` is one of `choices`; of an old value, with its new name."""
    if value not in choices:
        new = migrations.RENAMED_VALUES.get((subject.removeprefix("config."), value))
        rule = f"is now called {new}" if new else f"must be one of {', '.join(choices)}"
        raise UserError(subject, value, rule)
