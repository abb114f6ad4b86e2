"""The command line of a verb: its flags, flag files, checks, and errors of one line."""

import ast
import contextlib
import os
import pathlib
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from delg_jax import config_files, configuration, migrations, text_files
from delg_jax.cli import stored_config
from delg_jax.errors import UserError

_COMMENTS = ("#", "//")  # how a comment in a flag file begins
_REQUIRED = "must have a value other than None"  # absl's message for a flag that must be given
# Rules in our words, by a part of the message of absl or ml_collections
_RULES = {
    _REQUIRED: "must be given",
    "Non-boolean argument": "must be true or false",
    "invalid literal for int": "must be a whole number",
    "could not convert string to float": "must be a number",
    "is not a dict": "is a section; set one of its fields",
}


def define_common(
    values: flags.FlagValues,
    argv: list[str],
    config: str | None = None,
    stored: Sequence[str] = stored_config.PLACES,
) -> None:
    """Defines `--config`, `--workdir`, `--overwrite` and `--print_config`.

    Args:
      values: gets the flags.
      argv: the verb's command line, from which overrides of fields are read.
      config: config file to use if the command line names none.
      stored: outputs of the workdir whose configuration is used if there is no config file.
    """
    folder = value_of(argv, "index") or value_of(argv, "workdir")
    found = None
    if folder and config is None and value_of(argv, "config") is None:
        found = stored_config.find(
            pathlib.Path(configuration.local_path("--workdir", folder)), stored
        )
    define_config(values, argv, config, found)
    define_workdir(values)


def define_config(
    values: flags.FlagValues,
    argv: list[str],
    config: str | None = None,
    tree: ml_collections.ConfigDict | None = None,
) -> None:
    """Defines `--config` and `--print_config`.

    Args:
      values: gets the flags.
      argv: the verb's command line, from which overrides of fields are read.
      config: config file to use if the command line names none.
      tree: configuration to use instead of any file.

    Raises:
      UserError: if an override of a field of `tree` names an unknown one.
    """
    text = "Config file, or the name of one of ours (quickstart), with its argument after a colon; "
    text += "--config.field=value overrides a field. Without it, the configuration stored in the "
    text += "workdir is used."
    if tree is not None:
        try:
            config_flags.DEFINE_config_dict("config", tree, text, flag_values=values, sys_argv=argv)
        except (AttributeError, KeyError) as error:  # an override of an unknown field
            raise explain(error, "delg", argv) from error
    else:
        config_flags.DEFINE_config_file("config", None, text, flag_values=values, sys_argv=argv)
        values["config"].parser = _ConfigParser()
        if config is None:
            flags.mark_flag_as_required("config", flag_values=values)
        else:
            values.set_default("config", config)
    text = "Print every field with its value, as flags, and do nothing."
    flags.DEFINE_boolean("print_config", False, text, flag_values=values)


class _ConfigParser(flags.ArgumentParser):
    """Loads the file that `--config` names as `configuration.load` does."""

    def parse(self, text: str) -> ml_collections.ConfigDict:
        """Runs FILE:argument."""
        path, _, argument = text.partition(":")
        return configuration.load(path, argument)


def define_workdir(values: flags.FlagValues) -> None:
    """Defines `--workdir` and `--overwrite`."""
    define_path(values, "workdir", None, "Folder of all outputs.", required=True)
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Delete outputs of another configuration; without it they are an error.",
        flag_values=values,
    )


def define_path(
    values: flags.FlagValues, name: str, default: str | None, text: str, required: bool = False
) -> None:
    """Defines a flag that names a file or folder; `~` at its start is the home directory."""
    serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
    flags.DEFINE(_PathParser(name), name, default, text, flag_values=values, serializer=serializer)
    if required:
        flags.mark_flag_as_required(name, flag_values=values)


class _PathParser(flags.ArgumentParser):
    """Expands the home directory in the value of one flag."""

    def __init__(self, name: str) -> None:
        self._subject = f"--{name}"

    def parse(self, text: str) -> str:
        """Expands the home directory."""
        return configuration.local_path(self._subject, text)


def define_weights(values: flags.FlagValues) -> None:
    """Defines `--weights` and `--offline`; see `use_weights`."""
    text = "Weights of the network, instead of the fields config.model.pretrained, backbone and "
    text += "others that must agree: a file, a workdir with checkpoints, or a published name "
    text += "(docs/weights.md), which is downloaded once."
    define_path(values, "weights", None, text)
    text = "Download nothing; --weights must be in the cache or installed."
    flags.DEFINE_boolean("offline", False, text, flag_values=values)


def use_weights(values: flags.FlagValues) -> None:
    """Sets the fields of `config.model` that `--weights` decides, if it is given."""
    if values.weights is not None:
        from delg_jax.training import named_weights

        with values.config.unlocked():
            named_weights.use_weights(values.config, values.weights, offline=values.offline)


def define_processes(values: flags.FlagValues) -> None:
    """Defines `--cluster`, `--coordinator`, `--num_processes` and `--process_id`."""
    text = "Where to look for the other processes of the job: auto finds Slurm, Open MPI (ompi), "
    text += "TPU pods (tpu) and Kubernetes; none = nowhere, this process works alone."
    flags.DEFINE_string("cluster", None, text, flag_values=values)
    text = "host:port at which process 0 listens, where there is no cluster to find it."
    flags.DEFINE_string("coordinator", None, text, flag_values=values)
    text = "Number of processes of the job."
    flags.DEFINE_integer("num_processes", None, text, flag_values=values)
    flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", flag_values=values)


def processes(
    values: flags.FlagValues, ends_on_sigterm: bool = True
) -> contextlib.AbstractContextManager[None]:
    """The block in which a verb works with the other processes of its job.

    Args:
      values: with the flags of `define_processes`.
      ends_on_sigterm: see `distributed.joined`.
    """
    from delg_jax import distributed

    given = values.coordinator, values.num_processes, values.process_id, values.cluster
    return distributed.joined(*given, ends_on_sigterm=ends_on_sigterm)


def words_of(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """The words of a command line that are neither flags nor their values.

    Args:
      values: flags that are defined; others, as `--config.field`, are taken to have a value.
      argv: the command line, not parsed yet.
    """
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return words + rest
        if not word.startswith("-"):
            words.append(word)
            continue
        name, equals, _ = word.lstrip("-").partition("=")
        negated = name.startswith("no") and name[2:] in values and values[name[2:]].boolean
        if not (equals or negated or name in values and values[name].boolean):
            rest = rest[1:]
    return words


def with_tuples(argv: Sequence[str]) -> list[str]:
    """Writes values of fields that are tuples as tuples: `a,b` becomes `('a', 'b')`.

    Args:
      argv: the command line after the verb.
    """
    words, rest = [], list(argv)
    fields: dict[str, Any] = {}
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not (word.startswith("-") and name.startswith("config.") and (equals or rest)):
            words.append(word)
            continue
        value = value if equals else rest.pop(0)
        fields = fields or configuration.flatten(config_files.run("default"))
        if isinstance(fields.get(name.removeprefix("config.")), list) and value[:1] not in "([":
            value = repr(tuple(map(_literal, filter(None, value.split(",")))))
        words.append(f"--{name}={value}" if equals else word)
        words += [] if equals else [value]
    return words


def _literal(text: str) -> Any:
    """A number, or the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def as_flags(config: ml_collections.ConfigDict) -> str:
    """Every field as a line `--config.field=value`, as a flag file holds them."""
    fields = configuration.flatten(config)
    lines = (
        f"--config.{name}={tuple(value) if isinstance(value, list) else value}"
        for name, value in fields.items()
    )
    return "\n".join(lines)


def value_of(argv: list[str], flag: str) -> str | None:
    """The value of `--flag` in a command line that is not parsed yet; None if it is not there."""
    for position, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if name == flag and word.startswith("-"):
            return value if equals else "".join(argv[position + 1 : position + 2])
    return None


def expand_flag_files(argv: Sequence[str], above: tuple[str, ...] = ()) -> list[str]:
    """Replaces each `--flagfile` in a command line by the flags in the file.

    Args:
      argv: the command line.
      above: flag files that are being read; they are not read again.

    Returns:
      The command line without `--flagfile`. Each line of a flag file is one word; blank lines and
      lines that begin with # or // are ignored.

    Raises:
      UserError: for a file that cannot be read, or is not text.
    """
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name != "flagfile" or not (equals or rest):
            words.append(word)
            continue
        path = configuration.local_path("--flagfile", value if equals else rest.pop(0))
        if path not in above:
            words += expand_flag_files(_read_flag_file(path), (*above, path))
    return words


def _read_flag_file(path: str) -> list[str]:
    try:
        text = text_files.read(pathlib.Path(path), "--flagfile")
    except (UserError, ValueError) as error:  # ValueError: a name that no system accepts
        raise UserError("--flagfile", path, "must be a readable text file of flags") from error
    return [line for _, line in text_files.lines(text) if not line.startswith(_COMMENTS)]


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
      verb: the verb.
      argv: the command line after the verb.
      positional: name of the arguments that are not flags, in brackets if they are optional; empty
        if there are none.
      program: the program that the verb belongs to.

    Returns:
      The arguments that are not flags.

    Raises:
      UserError: for every mistake in the command line.
    """
    command = f"{program} {verb}"
    only_print = "print_config" in values and is_set(argv, "print_config")
    if not positional:
        _refuse_bare_config(values, command, argv)
    if only_print:
        _require_only_config(values)
    try:
        rest = values([command, *argv])[1:]
        if "config" in values:
            _require_types(values)
            configuration.expand_paths(values.config)
    except UserError:
        raise
    except Exception as error:  # of absl, or of an override that fits no field
        raise explain(error, command, argv) from error
    if "workdir" in values and values.workdir is not None:
        _require_folder("--workdir", values.workdir)
        _require_utf8("--workdir", values.workdir)
    if "config" in values:
        _require_utf8("config.data.tfds_dir", values.config.data.tfds_dir)
    if rest and not positional:
        raise UserError(command, " ".join(rest), "takes flags only (--name=value)")
    if positional and not positional.startswith("[") and not rest and not only_print:
        raise UserError(command, " ".join(argv), f"needs {positional}")
    subject = re.sub(r"[][.]", "", positional).strip()
    return [configuration.local_path(subject, word) for word in rest]


def _refuse_bare_config(values: flags.FlagValues, command: str, argv: list[str]) -> None:
    """Refuses a word that names a config, because `--config=` is missing."""
    for word in words_of(values, argv) if "config" in values else []:
        name = word.partition(":")[0]
        if name.endswith(".py") or name in config_files.ours():
            rule = f"takes flags only (--name=value); did you mean --config={word}?"
            raise UserError(command, word, rule)


def is_set(argv: Sequence[str], flag: str) -> bool:
    """Whether a boolean flag is set in a command line that is not parsed yet."""
    words = (word.lstrip("-") for word in argv if word.startswith("-"))
    return any(word in (flag, f"{flag}=true", f"{flag}=True", f"{flag}=1") for word in words)


def is_required(flag: flags.Flag) -> bool:
    """Whether a flag must be given."""
    return any(_REQUIRED in validator.message for validator in flag.validators)


def _require_only_config(values: flags.FlagValues) -> None:
    for name in values:
        if name != "config" and is_required(values[name]):
            values[name].validators = []


def _require_types(values: flags.FlagValues) -> None:
    """Checks overrides on the command line as `configuration.override` checks its values."""
    for path, after in config_flags.get_override_values(values["config"]).items():
        before = values[f"config.{path}"].default
        before = tuple(before) if isinstance(before, list) else before
        configuration.require_kind(path, before, after)


def _require_folder(flag: str, folder: str) -> None:
    """Refuses a folder that cannot be made because it, or a folder above it, is a file."""
    if not folder:
        raise UserError(flag, folder, "must name a folder")
    path = pathlib.Path(folder)
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if os.path.lexists(there) and not there.is_dir():
        raise UserError(flag, folder, f"must be a folder, but {there} is not one")


def _require_utf8(subject: str, folder: str) -> None:
    """Refuses a folder whose name is not UTF-8: TensorStore and ArrayRecord cannot open it."""
    try:
        os.path.abspath(folder).encode()
    except UnicodeEncodeError as error:
        rule = "must be a UTF-8 path; use a UTF-8 locale (LANG=C.UTF-8) or choose another folder"
        raise UserError(subject, folder, rule) from error


def explain(error: Exception, command: str, argv: list[str]) -> UserError:
    """Turns an error of a flag library into one that names the flag, field or file and its rule.

    Args:
      error: raised while the command line was parsed, or by the config file that it names.
      command: the program and its verb.
      argv: the command line after it.
    """
    text = " ".join(str(error).split())
    if isinstance(error, flags.UnrecognizedFlagError):
        rule = f"is not a flag of {command}{_suggestion(text, '--')}"
        return UserError(f"--{error.flagname}", error.flagvalue.partition("=")[2], rule)
    if isinstance(error, flags.IllegalFlagValueError):
        return _wrong_value(text, command, argv)
    field = _unknown_field(text, argv)
    if field and not isinstance(error, flags.Error):
        past = migrations.what_became_of(field[0].removeprefix("config."))
        unknown = f"is not a field of the configuration{_suggestion(text)}"
        return UserError(*field, past or unknown)
    return UserError(command, " ".join(argv), text)


def _suggestion(text: str, prefix: str = "") -> str:
    close = re.search(r'Did you mean:? "?(\w+)', text)
    return f" (did you mean {prefix}{close[1]}?)" if close else ""


def _wrong_value(text: str, command: str, argv: list[str]) -> UserError:
    parts = re.fullmatch(r"flag --(\S+?)=(.*?): (.*)", text)
    if not parts:
        return UserError(command, " ".join(argv), text)
    name, value, message = parts.groups()
    rule = next((ours for theirs, ours in _RULES.items() if theirs in message), message)
    subject = name if name.startswith("config.") else f"--{name}"
    if name == "config" and value == "None":
        rule += f": a .py file, or one of {', '.join(config_files.ours())}; a workdir that "
        rule += "holds features or checkpoints needs none"
    return UserError(subject, None if value == "None" else value, rule)


def _unknown_field(text: str, argv: list[str]) -> tuple[str, str] | None:
    """Path and value of the override that `text` is about."""
    for position, word in enumerate(argv):
        path, equals, value = word.lstrip("-").partition("=")
        if not path.startswith("config."):
            continue
        indexed = not re.fullmatch(r"\w+(\.\w+)+", path)  # for example config.field[0]
        quoted = any(f"'{part}'" in text.replace("\\", "") for part in path.split(".")[1:])
        if indexed or quoted or f"lookup: {path.removeprefix('config.')}" in text:
            return path, value if equals else "".join(argv[position + 1 : position + 2])
    return None


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
        note = f" (default: {flag.default})" if shown else ""
        if is_required(flag):
            note = (
                " (required; a workdir may store one)" if flag.name == "config" else " (required)"
            )
        lines.append(f"  --{flag.name}{note}")
        lines.extend(
            textwrap.wrap(flag.help or "", 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
        )
    return "\n".join(lines)
