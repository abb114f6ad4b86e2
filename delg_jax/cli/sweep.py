"""Trains and evaluates over many values of configuration fields, and writes one table.

    delg sweep --config=FILE --workdir=DIR --sweep=train.learning_rate=0.003,0.01 --seeds=0,1,2
    delg sweep --config=FILE --workdir=DIR --sweep='rerank.sp.min_inliers=integers(4,10)' --draws=8
    delg sweep --config=FILE --workdir=DIR --sweep=sweep.json --jobs=4 --gpus=0,1,2,3

The sweep is the product of all --sweep. Random values are uniform(a,b), loguniform(a,b),
integers(a,b) with both ends included, or choice(x,y,z). The fields of a setting change together.
A JSON file can hold {"settings": [{"model.pooling": "gem", "train.steps": 10}, ...],
"grid": {"model.pooling": ["gem", "avg"]}, "random": {"train.learning_rate": {"loguniform":
[1e-4, 1e-2]}}, "draws": 8, "draw_seed": 0, "seeds": [0, 1], "verbs": ["train", "evaluate"]}.

Writes a folder per run, sweep.json, and sweep.md with a row per setting: mean and standard
deviation over its seeds, which are all fields named `seed`. The same command resumes a stopped
sweep and repeats failed runs. A failed run does not stop the others; the exit status is then 2.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments
from delg_jax.errors import UserError

PROGRAM = (sys.executable, "-m", "delg_jax", "sweep")
# Flags that decide how runs are done, not which
_MODES = ("only", "gather", "print_commands", "slurm")
_OF_THE_SWEEP = (*_MODES, "digest", "jobs", "gpus")


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv, stored=())
    text = "field=value,value,..., field=uniform(a,b), or a JSON file; can be repeated."
    flags.DEFINE_multi_string("sweep", [], text, flag_values=values)
    text = "Values of the field seed for each setting."
    flags.DEFINE_list("seeds", None, text, flag_values=values)
    flags.DEFINE_integer("draws", None, "Number of random draws.", flag_values=values)
    flags.DEFINE_integer("draw_seed", None, "Seed of the random draws (0).", flag_values=values)
    text = "Verbs of each run (train,evaluate)."
    flags.DEFINE_list("verbs", None, text, flag_values=values)
    flags.DEFINE_integer("max_runs", 1000, "Maximum number of runs.", flag_values=values)
    text = "Parallel runs, each in its own process; 0 runs them one by one in this process."
    flags.DEFINE_integer("jobs", 0, text, flag_values=values)
    text = "Values of CUDA_VISIBLE_DEVICES to assign to the jobs in turn."
    flags.DEFINE_list("gpus", [], text, flag_values=values)
    text = "Only print a command for each unfinished run."
    flags.DEFINE_boolean("print_commands", False, text, flag_values=values)
    text = "Only write these commands to this file, as a script for sbatch."
    arguments.define_path(values, "slurm", None, text)
    text = "Only write the table of finished runs; other jobs may still be running."
    flags.DEFINE_boolean("gather", False, text, flag_values=values)
    flags.DEFINE_string("only", None, "Do only this run, without the table.", flag_values=values)
    text = "With --only: expected digest of the run's configuration and verbs."
    flags.DEFINE_string("digest", None, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Sweeps and prints the table; raises a UserError at the end if a run failed."""
    from delg_jax.sweeps import expansion, sweep_spec
    from delg_jax.sweeps.parallel_jobs import interruptible

    _check(values)
    given = {name: values[name].value for name in ("draws", "draw_seed", "verbs")}
    given["seeds"] = values.seeds and [_whole_number(seed) for seed in values.seeds]
    spec = sweep_spec.read(values.sweep, given)
    runs = expansion.expand(values.config, spec, values.max_runs)
    with interruptible():
        if values.only:
            _do_one(values, runs)
        elif values.print_commands or values.slurm:
            _write_commands(values, runs)
        else:
            _do_all(values, runs)


def _check(values: flags.FlagValues) -> None:
    modes = [name for name in _MODES if values[name].value]
    if len(modes) > 1:
        rule = f"cannot be combined with --{modes[0]}"
        raise UserError(f"--{modes[1]}", values[modes[1]].value, rule)
    for name, least in (("jobs", 0), ("max_runs", 1)):
        value: int = values[name].value or 0
        if value < least:
            raise UserError(f"--{name}", values[name].value, f"must be at least {least}")
    if values.slurm == "":
        raise UserError("--slurm", "", "must not be empty")
    for name, other in (("gpus", "jobs"), ("digest", "only")):
        if values[name].value and not values[other].value:
            raise UserError(f"--{name}", values[name].value, f"needs --{other}")


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UserError("--seeds", text, "must be a whole number") from error


def _do_all(values: flags.FlagValues, runs: Sequence) -> None:
    """Does all runs, or collects those that are finished, and writes the table."""
    from delg_jax.reports.sweep_tables import sweep_report
    from delg_jax.sweeps import parallel_jobs, sweep

    base, root = values.config, pathlib.Path(values.workdir)
    missing: list[str] = []
    if values.gather:
        results, missing = sweep.gather(base, runs, root)
        sweep.write(root, results, missing)
    elif values.jobs:
        commands = _commands(values, runs)
        results = parallel_jobs.run(
            base, runs, root, commands, values.jobs, values.gpus, values.overwrite
        )
    else:
        results = sweep.run(base, runs, root, values.overwrite)
    report = sweep_report(results, missing)
    workdir.write_text(root / "sweep.md", report + "\n")
    print(report)
    sweep.require_success([result for result in results if result.run.name not in missing])


def _do_one(values: flags.FlagValues, runs: Sequence) -> None:
    from delg_jax.sweeps import parallel_jobs, sweep
    from delg_jax.sweeps.run_record import Record

    one = next((one for one in runs if one.name == values.only), None)
    if one is None:
        raise UserError("--only", values.only, "is not a run of this sweep")
    root = pathlib.Path(values.workdir)
    (config,) = sweep.check(values.config, [one], root, values.overwrite)
    digest = Record.begin(config, one.verbs).digest
    if values.digest not in (None, digest):
        rule = f"the run now has the digest {digest}: its configuration changed"
        raise UserError("--digest", values.digest, rule)
    patience = parallel_jobs.patience()
    done = sweep.run_one(one, config, root / one.name, values.overwrite, patience)
    sweep.require_success([done])


def _write_commands(values: flags.FlagValues, runs: Sequence) -> None:
    """Prints the commands, or writes them as a script."""
    from delg_jax.sweeps import parallel_jobs

    commands = _commands(values, runs)
    if values.print_commands:
        print(*parallel_jobs.lines(commands), sep="\n")
    elif not commands:
        print("every run is finished")
    else:
        gather, folder = [*_words(values), "--gather"], pathlib.Path.cwd()
        script = parallel_jobs.slurm_script(commands, gather, values.workdir, folder, values.jobs)
        workdir.write_text(pathlib.Path(values.slurm), script)
        print(f"{values.slurm}: {len(commands)} runs; submit it with sbatch")


def _commands(values: flags.FlagValues, runs: Sequence) -> dict[str, list[str]]:
    """Command of each unfinished run, as words, by its name."""
    from delg_jax.sweeps import sweep
    from delg_jax.sweeps.run_record import Record

    root = pathlib.Path(values.workdir)
    commands = {}
    configs = sweep.check(values.config, runs, root, values.overwrite)
    for one, config in zip(runs, configs, strict=True):
        wanted = Record.begin(config, one.verbs)
        if sweep.finished(one, wanted, root / one.name) is None:
            only = [f"--only={one.name}", f"--digest={wanted.digest}"]
            commands[one.name] = [*_words(values), *only]
    return commands


def _words(values: flags.FlagValues) -> list[str]:
    """The command line of this sweep, without the flags that decide how runs are done."""
    words = list(PROGRAM)
    for name in values:
        flag = values[name]
        if flag.using_default_value or name in _OF_THE_SWEEP:
            continue
        if name.startswith("config.") and isinstance(flag.value, list | tuple):
            words.append(f"--{name}={tuple(flag.value)!r}")  # absl drops an empty one
        else:
            words += flag.serialize().split("\n")
    return words
