"""The program: finds the verb, parses its flags, and reports a user's mistake in one line."""

import contextlib
import difflib
import importlib
import io
import logging
import os
import select
import sys
import types
from collections.abc import Callable, Sequence

from absl import flags
from absl import logging as absl_logging

from delg_jax import __version__, file_names, system_errors
from delg_jax.benchmarks import blas_kernels
from delg_jax.cli import arguments, stored_config
from delg_jax.errors import UserError

# What each verb does
VERBS = {
    "download": "download published data sets",
    "prepare": "prepare the data set of an experiment",
    "train": "train a network, or resume training",
    "extract": "extract global and local features of database and queries",
    "verify": "check every chunk of a feature store",
    "index": "build the similarity graph of the database for local-to-global retrieval",
    "search": "search the database for an image",
    "match": "match two images by their local features and draw the inliers",
    "overlap": "find training images that show what test pictures show",
    "evaluate": "rank by every method and print the metrics",
    "ilias": "score global descriptors on ILIAS, with its distractors in parts",
    "sweep": "run train and evaluate over a grid of config fields",
    "report": "write a report of workdirs as one HTML file",
    "convert": "convert weights of other libraries to a checkpoint",
    "export": "export the model, or features, for other programs",
    "bench": "time a kernel and its alternatives",
}
_FAILED, _UNREAD = 2, 141  # the latter as the shell has it for SIGPIPE


def console() -> None:
    """Entry point of the console script."""
    sys.unraisablehook = system_errors.without_late_writers(sys.unraisablehook)
    if sys.argv[1:2] == ["bench"]:
        blas_kernels.restart_unpinned()  # NumPy is loaded, and has read them
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one verb.

    Args:
      argv: the command line after the program's name.

    Returns:
      The exit status: 0, or 2 after an error that the user can fix, which is one line on stderr.
    """
    return _status(lambda: _dispatch(list(argv)))


def run_experiment(module: types.ModuleType, argv: Sequence[str]) -> int:
    """Runs a module of `experiments/` like a verb.

    Args:
      module: with `define_flags` and `run`; its docstring is shown by --help.
      argv: the command line after the module's name.

    Returns:
      The exit status, as for `main`.
    """
    summary, _, description = (module.__doc__ or "").partition("\n")
    name = module.__spec__.name if module.__spec__ else module.__name__
    return _status(lambda: _run(module, name, list(argv), summary, description, "python -m"))


def _status(action: Callable[[], None]) -> int:
    """Runs an action; reports mistakes of the user and failures of the machine in one line."""
    _open_closed_streams()
    _escape_unencodable()
    try:
        _require_current_folder()
        action()
        sys.stdout.flush()
    except UserError as error:
        _complain(str(error))
        return _FAILED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return _UNREAD
        explained = system_errors.explain(error) or _without_devices()
        if explained is None:
            raise
        _complain(str(explained))
        return _FAILED
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes")
        return 130
    return 0


def _require_current_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("current folder", "", "was deleted; change to another one") from error


def _without_devices() -> UserError | None:
    """Explains that JAX_PLATFORMS names what this machine lacks, after any error of a verb."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
    except Exception as error:  # JAX raises several kinds, and for `cuda` an assertion
        rule = "names a platform that JAX cannot use here; unset it to use what there is"
        reason = str(error).partition(". (")[0]
        return UserError("JAX_PLATFORMS", platforms, f"{rule} ({reason})" if reason else rule)
    return None


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # there is nowhere else to say it
        sys.stderr.write(f"delg: {text}\n")
        sys.stderr.flush()


def _open_closed_streams() -> None:
    """Lets what is written to a closed stream go nowhere: Python has none then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _is_unread() -> bool:
    """Whether nobody reads the output any more, as in `delg --help | head -1`; then gives it up."""
    if not hasattr(select, "poll"):  # on Windows, where this is another error
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(events & select.POLLERR for _, events in output.poll(0)):
        return False
    # What is left would be written, and fail, once more when Python ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _escape_unencodable() -> None:
    r"""Writes characters that the encoding of the output lacks as `\xNN`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def overview() -> str:
    """The text of `delg --help`."""
    lines = [
        "delg: image retrieval by global and local features (DELG, local-to-global)",
        "",
        "usage: delg VERB --config=NAME_OR_FILE[:argument] [--config.field=value ...]"
        " --workdir=DIR",
        "",
        *(f"  {verb:<10}{text}" for verb, text in VERBS.items()),
        "",
        "delg help VERB lists a verb's flags; configs/default.py explains every field, and",
        "--print_config prints them as they are.",
    ]
    return "\n".join(lines)


def _dispatch(argv: list[str]) -> None:
    if argv[:1] == ["help"] and len(argv) > 1:
        argv = [argv[1], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        _print(overview())
    elif argv[0] == "--version":
        _print(__version__)
    else:
        verb = argv[0]
        if verb not in VERBS:
            close = difflib.get_close_matches(verb, VERBS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError("verb", verb, f"{hint}verbs are {', '.join(VERBS)}")
        module = importlib.import_module(f"delg_jax.cli.{verb}")
        _run(module, verb, argv[1:], VERBS[verb], module.__doc__ or "")


def _run(
    module: types.ModuleType,
    name: str,
    argv: list[str],
    summary: str,
    description: str,
    program: str = "delg",
) -> None:
    values = flags.FlagValues()
    argv = arguments.with_tuples(arguments.expand_flag_files(argv))
    help_asked = any(word in ("--help", "-h", "-help") for word in argv)
    try:
        module.define_flags(values, [] if help_asked else argv)
    except flags.Error as error:
        raise arguments.explain(error, f"{program} {name}", argv) from error
    positional = getattr(module, "POSITIONAL", "")
    if help_asked:
        _print(arguments.usage(name, summary, description, values, positional, program))
        return
    rest = arguments.parse(values, name, argv, positional, program)
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's global flags; all keep their defaults
    if "print_config" in values and values.print_config:
        _print(arguments.as_flags(values.config))
        return
    _set_up_logging()
    with stored_config.of_this_version(values):
        module.run(values, *rest)


def _set_up_logging() -> None:
    """Shows our own log lines, and only errors from libraries."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    absl_logging.get_absl_logger().addFilter(system_errors.is_other)  # reported when the verb ends
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("delg_jax")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


class _Lines(logging.Formatter):
    """Writes a message as one line that changes nothing in a terminal, whatever names it holds."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides
        """The line of a record; tracebacks follow it."""
        record.message = file_names.printable(record.message)
        return super().formatMessage(record)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
