"""The one exception for what a user can mend: a field or file, its value, the rule it breaks."""


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


def require_choice(subject: str, value: str, choices: "tuple[str, ...] | list[str]") -> None:
    """Raises a UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(subject, value, f"must be one of {', '.join(choices)}")
