"""What absl and config files raise for a wrong command line, as errors that name flag and rule."""

import re

from absl import flags

from delg_jax.errors import UserError

# Part of a flag's complaint about its value: the rule in our words.
_RULES = {
    "must have a value other than None": "must be given",
    "Non-boolean argument": "must be true or false",
    "invalid literal for int": "must be a whole number",
    "could not convert string to float": "must be a number",
    "is not a dict": "is a section; set one of its fields",
}


def value_of(argv: list[str], flag: str) -> str | None:
    """What a command line says behind `--flag`, before it is parsed; None if it does not."""
    for position, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if name == flag and word.startswith("-"):
            return value if equals else "".join(argv[position + 1 : position + 2])
    return None


def config_path(argv: list[str]) -> str | None:
    """The config file that a command line names, without its argument; None if there is none."""
    value = value_of(argv, "config")
    return None if value is None else value.partition(":")[0]


def explain(error: Exception, command: str, argv: list[str]) -> UserError:
    """Says which flag, field or file is wrong, and what it must be.

    Args:
      error: raised while the command line was parsed, or by the config file that it names.
      command: the verb with its program.
      argv: the command line after it.
    """
    text = " ".join(str(error).split())
    if isinstance(error, flags.UnrecognizedFlagError):
        rule = f"is no flag of {command}{_hint(text, '--')}"
        return UserError(f"--{error.flagname}", error.flagvalue.partition("=")[2], rule)
    if isinstance(error, flags.IllegalFlagValueError):
        return _wrong_value(text, command, argv)
    field = _unknown_field(text, argv)
    if field and not isinstance(error, flags.Error):
        return UserError(*field, f"is no field of the configuration{_hint(text)}")
    return UserError(command, " ".join(argv), text)


def _hint(text: str, prefix: str = "") -> str:
    close = re.search(r'Did you mean:? "?(\w+)', text)
    return f" (did you mean {prefix}{close[1]}?)" if close else ""


def _wrong_value(text: str, command: str, argv: list[str]) -> UserError:
    parts = re.fullmatch(r"flag --(\S+?)=(.*?): (.*)", text)
    if not parts:
        return UserError(command, " ".join(argv), text)
    name, value, complaint = parts.groups()
    rule = next((ours for theirs, ours in _RULES.items() if theirs in complaint), complaint)
    subject = name if name.startswith("config.") else f"--{name}"
    return UserError(subject, None if value == "None" else value, rule)


def _unknown_field(text: str, argv: list[str]) -> tuple[str, str] | None:
    """Path and value of the override that `text` complains about."""
    for position, word in enumerate(argv):
        path, equals, value = word.lstrip("-").partition("=")
        if not path.startswith("config."):
            continue
        indexed = not re.fullmatch(r"\w+(\.\w+)+", path)  # as in config.field[0]
        quoted = any(f"'{part}'" in text.replace("\\", "") for part in path.split(".")[1:])
        if indexed or quoted or f"lookup: {path.removeprefix('config.')}" in text:
            return path, value if equals else "".join(argv[position + 1 : position + 2])
    return None
