"""The exception for mistakes of the user: a field or file, its value, and the rule it breaks."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from delg_jax import file_names, migrations


class UserError(Exception):
    """A mistake in the configuration, the command line or an input file.

    The command line prints it as one line and exits with status 2.

    Args:
      subject: the field or file, for example `config.data.root`.
      value: its value.
      rule: what it must be, as a sentence without a subject ("must be an existing folder").
    """

    def __init__(self, subject: str, value: object, rule: str) -> None:
        # One line, even if the name of a file or the text of a library has several
        text = " ".join(f"{subject} = {value!r}: {rule}".splitlines())
        super().__init__(file_names.printable(text))
        self.subject = subject
        self.value = value
        self.rule = rule


class WrongField(ValueError):
    """A wrong value of a field in a class of settings.

    Args:
      field: its name.
      value: its value.
      rule: what it must be, as for `UserError`.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"`{field}` (={value!r}) {rule}")
        self.field = field
        self.rule = rule


def require_least(settings: object, least: int, *names: str) -> None:
    """Raises a WrongField for the first of the named fields of `settings` below `least`."""
    for name in names:
        value = getattr(settings, name)
        if not value >= least:  # also refuses NaN
            rule = f"must be at least {least}" if least else "must not be negative"
            raise WrongField(name, value, rule)


@contextlib.contextmanager
def fields_of(section: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Turns a `WrongField` inside the block into a UserError of a section of the configuration.

    Args:
      section: for example `config.rerank.sp`.
      given: values by field, as the user gave them.
    """
    try:
        yield
    except WrongField as error:
        field = error.field
        raise UserError(f"{section}.{field}", given[field], error.rule) from error


def require_choice(subject: str, value: str, choices: "tuple[str, ...] | list[str]") -> None:
    """Raises a UserError unless `value` is in `choices`; for an old value it gives the new name."""
    if value not in choices:
        new = migrations.RENAMED_VALUES.get((subject.removeprefix("config."), value))
        rule = f"is now called {new}" if new else f"must be one of {', '.join(choices)}"
        raise UserError(subject, value, rule)


def require_package(module: str, package: str, rule: str) -> Any:
    """Imports the module of an optional package.

    Args:
      module: to import.
      package: that contains it.
      rule: who needs it, and what installs it.

    Returns:
      The module.

    Raises:
      UserError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError("package", package, f"is not installed, and {rule}") from error
