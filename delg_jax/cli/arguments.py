"""Flags that verbs share, and their mistakes as one line each."""

import os
import pathlib
import re
import textwrap
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from delg_jax import configuration, migrations, text_files
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
        past = migrations.what_became_of(field[0].removeprefix("config."))
        return UserError(*field, past or f"is no field of the configuration{_hint(text)}")
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


_SUBJECT = "--flagfile"
_COMMENTS = ("#", "//")


def expanded(argv: Sequence[str], above: tuple[str, ...] = ()) -> list[str]:
    """A command line with the flags of files in the place of each `--flagfile`.

    Args:
      argv: the command line.
      above: files that are being read, which are not read again.

    Returns:
      The command line without `--flagfile`. In a file each line is a word of it; blank lines and
      those that begin with # or // do not count.

    Raises:
      UserError: for a file that cannot be read, or is no text.
    """
    words, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name != "flagfile" or not (equals or rest):
            words.append(word)
            continue
        path = value if equals else rest.pop(0)
        if path not in above:
            words += expanded(_words(path), (*above, path))
    return words


def _words(path: str) -> list[str]:
    try:
        text = text_files.read(pathlib.Path(path), _SUBJECT)
    except (UserError, ValueError) as error:  # the latter for a name that no system takes
        raise UserError(_SUBJECT, path, "must be a readable text file of flags") from error
    return [line for _, line in text_files.lines(text) if not line.startswith(_COMMENTS)]


def define_common(values: flags.FlagValues, argv: list[str], config: str | None = None) -> None:
    """Defines `--config`, `--workdir` and `--overwrite`.

    Args:
      values: gets the flags.
      argv: the verb's command line, which config overrides are read from.
      config: file to take where the command line names none.
    """
    define_config(values, argv, config)
    define_workdir(values)


def define_config(values: flags.FlagValues, argv: list[str], config: str | None = None) -> None:
    """Defines `--config`; arguments as of `define_common`."""
    text = "Config file, or the name of one of ours (quickstart), with its argument after a colon; "
    text += "--config.field=value overrides a field."
    config_flags.DEFINE_config_file("config", None, text, flag_values=values, sys_argv=argv)
    values["config"].parser = _ConfigFiles()
    if config is None:
        flags.mark_flag_as_required("config", flag_values=values)
    else:
        values.set_default("config", config)


class _ConfigFiles(flags.ArgumentParser):
    """Loads the file that `--config` names as `configuration.load` does."""

    def parse(self, text: str) -> ml_collections.ConfigDict:
        """Runs FILE:argument."""
        path, _, argument = text.partition(":")
        return configuration.load(path, argument)


def define_path(
    values: flags.FlagValues, name: str, default: str | None, text: str, required: bool = False
) -> None:
    """Defines a flag that names a file or folder; `~` at its start is the home directory."""
    serializer = flags.ArgumentSerializer()
    flags.DEFINE(_Paths(name), name, default, text, flag_values=values, serializer=serializer)
    if required:
        flags.mark_flag_as_required(name, flag_values=values)


class _Paths(flags.ArgumentParser):
    """Paths of one flag."""

    def __init__(self, name: str) -> None:
        self._subject = f"--{name}"

    def parse(self, text: str) -> str:
        """Expands the home directory."""
        return configuration.expand_home(self._subject, text)


def define_workdir(values: flags.FlagValues) -> None:
    """Defines `--workdir` and `--overwrite`."""
    define_path(values, "workdir", None, "Folder of all artefacts.")
    flags.mark_flag_as_required("workdir", flag_values=values)
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Delete artefacts of another configuration instead of refusing to touch them.",
        flag_values=values,
    )


def define_processes(values: flags.FlagValues) -> None:
    """Defines `--coordinator`, `--num_processes` and `--process_id`."""
    text = "host:port at which process 0 listens."
    flags.DEFINE_string("coordinator", None, text, flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes of the job.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", flag_values=values)


def parse(
    values: flags.FlagValues,
    verb: str,
    argv: list[str],
    positional: str = "",
    program: str = "delg",
) -> list[str]:
    """Parses a verb's command line into `values`.

    Args:
      values: flags, defined.
      verb: what is run.
      argv: the command line after the verb.
      positional: name of the arguments that are not flags, in brackets if they may be absent;
        empty if there are none.
      program: what the verb belongs to.

    Returns:
      The arguments that are not flags.

    Raises:
      UserError: for every mistake in the command line.
    """
    command = f"{program} {verb}"
    try:
        rest = values([command, *argv])[1:]
        if "config" in values:
            _require_kinds(values)
            configuration.expand_paths(values.config)
    except UserError:
        raise
    except Exception as error:  # of absl, or of an override that fits no field
        raise explain(error, command, argv) from error
    if "workdir" in values:
        _require_folder("--workdir", values.workdir)
        _require_utf8("--workdir", values.workdir)
    if "config" in values:
        _require_utf8("config.data.tfds_dir", values.config.data.tfds_dir)
    if rest and not positional:
        raise UserError(command, " ".join(rest), "takes flags only (--name=value)")
    if positional and not positional.startswith("[") and not rest:
        raise UserError(command, " ".join(argv), f"needs {positional}")
    return [configuration.expand_home(positional.strip("[]. "), word) for word in rest]


def _require_folder(flag: str, folder: str) -> None:
    """Refuses a folder that cannot be made because a file is in its place, or above it."""
    if not folder:
        raise UserError(flag, folder, "must name a folder")
    path = pathlib.Path(folder)
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if os.path.lexists(there) and not there.is_dir():
        raise UserError(flag, folder, f"must be a folder, but {there} is none")


def _require_utf8(subject: str, folder: str) -> None:
    """Refuses a folder that the libraries that write arrays and records could not name."""
    try:
        os.path.abspath(folder).encode()
    except UnicodeEncodeError as error:
        rule = "must be a path of UTF-8 in a locale of UTF-8 (LANG=C.UTF-8); choose another folder"
        raise UserError(subject, folder, rule) from error


def _require_kinds(values: flags.FlagValues) -> None:
    """Holds overrides on the command line to what `configuration.override` asks of a value."""
    for path, after in config_flags.get_override_values(values["config"]).items():
        before = values[f"config.{path}"].default
        before = tuple(before) if isinstance(before, list) else before
        configuration.require_kind(path, before, after)


def usage(
    verb: str,
    summary: str,
    description: str,
    values: flags.FlagValues,
    positional: str = "",
    program: str = "delg",
) -> str:
    """The text of `delg VERB --help`; arguments as for `parse`."""
    command = f"{program} {verb}"
    line = f"usage: {command} {positional}".rstrip() + " [--flag=value ...]"
    lines = [f"{command}: {summary}", "", line, "", description.strip("\n"), "", "flags:"]
    for flag in sorted(values._flags().values(), key=lambda f: f.name):  # noqa: SLF001
        if flag.name in ("help", "helpfull", "helpshort", "helpxml"):
            continue
        shown = flag.default and not isinstance(flag.default, ml_collections.ConfigDict)
        lines.append(f"  --{flag.name}" + (f" (default: {flag.default})" if shown else ""))
        lines.extend(
            textwrap.wrap(flag.help or "", 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
        )
    return "\n".join(lines)
