"""Flags that verbs share, and their mistakes as one line each."""

import os
import pathlib
import sys
import textwrap

import ml_collections
from absl import flags
from ml_collections import config_flags

from delg_jax import configuration
from delg_jax.cli import mistakes
from delg_jax.errors import UserError


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
    _make_importable(argv)
    config_flags.DEFINE_config_file(
        "config",
        config,
        "Config file, with its argument after a colon; --config.field=value overrides a field.",
        flag_values=values,
        sys_argv=argv,
    )
    if config is None:
        flags.mark_flag_as_required("config", flag_values=values)


def define_workdir(values: flags.FlagValues) -> None:
    """Defines `--workdir` and `--overwrite`."""
    flags.DEFINE_string("workdir", None, "Folder of all artefacts.", flag_values=values)
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


def _make_importable(argv: list[str]) -> None:
    """Lets a config file import its neighbours, `from configs import default`, from anywhere."""
    path = mistakes.config_path(argv)
    root = str(pathlib.Path(path or ".").resolve().parent.parent)
    if path is not None and root not in sys.path:
        sys.path.insert(0, root)


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
            values.config.is_locked  # noqa: B018 - a missing file shows when it is first touched
            _require_kinds(values)
    except UserError:
        raise
    except Exception as error:  # a config file is a program and can raise anything
        raise mistakes.explain(error, command, argv) from error
    if "workdir" in values and not values.workdir:
        raise UserError("--workdir", values.workdir, "must name a folder")
    if "workdir" in values:
        _require_utf8("--workdir", values.workdir)
    if "config" in values:
        _require_utf8("config.data.tfds_dir", values.config.data.tfds_dir)
    if rest and not positional:
        raise UserError(command, " ".join(rest), "takes flags only (--name=value)")
    if positional and not positional.startswith("[") and not rest:
        raise UserError(command, " ".join(argv), f"needs {positional}")
    return rest


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
