"""Flags that verbs share, and their mistakes as one line each."""

import pathlib
import sys
import textwrap

from absl import flags
from ml_collections import config_flags

from delg_jax.errors import UserError


def define_common(values: flags.FlagValues, argv: list[str], workdir: bool = True) -> None:
    """Defines `--config`, `--workdir` and `--overwrite`.

    Args:
      values: gets the flags.
      argv: the verb's command line, which config overrides are read from.
      workdir: whether the verb needs `--workdir`.
    """
    _make_importable(argv)
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, with its argument after a colon; --config.field=value overrides a field.",
        flag_values=values,
        sys_argv=argv,
    )
    flags.mark_flag_as_required("config", flag_values=values)
    flags.DEFINE_string("workdir", None, "Folder of all artefacts.", flag_values=values)
    if workdir:
        flags.mark_flag_as_required("workdir", flag_values=values)
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Delete artefacts of another configuration instead of refusing to touch them.",
        flag_values=values,
    )


def _make_importable(argv: list[str]) -> None:
    """Lets a config file import its neighbours, `from configs import default`, from anywhere."""
    for position, word in enumerate(argv):
        name, equals, path = word.lstrip("-").partition("=")
        if name != "config":
            continue
        path = path if equals else "".join(argv[position + 1 : position + 2])
        root = str(pathlib.Path(path.partition(":")[0]).resolve().parent.parent)
        if root not in sys.path:
            sys.path.insert(0, root)


def parse(values: flags.FlagValues, verb: str, argv: list[str]) -> None:
    """Parses a verb's command line into `values`; raises a UserError for every mistake in it."""
    command = f"delg {verb}"
    try:
        rest = values([command, *argv])[1:]
        if "config" in values:
            values.config.is_locked  # noqa: B018 - a missing file shows when it is first touched
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(command, " ".join(argv), _reason(error)) from error
    except SyntaxError as error:
        rule = f"must be Python: {error.msg} (line {error.lineno})"
        raise UserError("--config", error.filename, rule) from error
    if rest:
        raise UserError(command, " ".join(rest), "takes flags only (--name=value)")


def _reason(error: Exception) -> str:
    """The line of an error's text that says what is wrong."""
    if isinstance(error, OSError) and error.filename:
        return f"cannot read {error.filename}: {error.strerror}"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if lines[0].startswith("Error whilst parsing") else " ".join(lines)


def usage(verb: str, summary: str, description: str, values: flags.FlagValues) -> str:
    """The text of `delg VERB --help`."""
    lines = [f"delg {verb}: {summary}", "", description.strip(), "", "flags:"]
    for flag in sorted(values._flags().values(), key=lambda f: f.name):  # noqa: SLF001
        if flag.name in ("help", "helpfull", "helpshort", "helpxml"):
            continue
        lines.append(f"  --{flag.name}" + (f" (default: {flag.default})" if flag.default else ""))
        lines.extend(
            textwrap.wrap(flag.help or "", 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
        )
    return "\n".join(lines)
