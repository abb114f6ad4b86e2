"""Training as on a cluster: many classes, several processes, interruptions; on one machine.

    python -m experiments.benchmarks.training_at_scale --workdir=runs/training_at_scale

Writes files of the published layout of GLDv2-clean (tiny JPEGs in tars), prepares them by
`delg prepare`, and trains a small network with sharded classifiers in several processes, which find
each other as tasks of Slurm:

- undisturbed;
- with interruptions at random steps: SIGTERM to one process (`preempted`), SIGKILL (`killed`), and
  SIGTERM to all, followed by SIGKILL (`requeued`), each followed by the same command;
- on another number of processes.

The parameters of the last checkpoints are compared. The input and the step are also timed alone.
Everything that is there already in --workdir is used again. Writes training_at_scale.json and
training_at_scale.md into --results. Linux only.
"""

import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from flax import traverse_util
from PIL import Image

from delg_jax import config_files, configuration
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.sweeps.parallel_jobs import interruptible

_PIXELS = 32  # side of the JPEGs, and of training images
_TAR_IMAGES = 4000
_DEVICES = 8  # of all processes together
_LONG_SECONDS = 24 * 3600.0  # for a job that ends by itself
_GRACE_SECONDS = 30.0  # from SIGTERM to SIGKILL, as Slurm's KillWait
_KINDS = ("preempted", "killed", "requeued")
_ENDED_STATUS = 75  # of a run that was asked to stop


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
      images: number of images.
      classes: number of landmarks.
      steps: updates of a run.
      processes: of the first runs.
      others: processes of the run on another number.
      interruptions: of the disturbed run.
      validation: images of a validation.
    """

    images: int
    classes: int
    steps: int
    processes: int
    others: int
    interruptions: int
    validation: int


SIZES = {
    "quick": Size(600, 150, 20, 2, 1, 2, 64),
    "full": Size(200_000, 81_313, 300, 4, 2, 6, 2_048),
}


def write_files(root: pathlib.Path, size: Size) -> None:
    """Writes csv files and tars of the published layout.

    Args:
      root: of the files; what is there is kept.
      size: of the data set. The first images show one landmark each, so that all have images.
    """
    if (root / "train_clean.csv").exists():
        return
    rng = np.random.default_rng(0)
    landmarks = np.concatenate(
        [np.arange(size.classes), rng.integers(0, size.classes, size.images - size.classes)]
    )
    names = [hashlib.md5(str(n).encode()).hexdigest()[:16] for n in range(size.images)]
    (root / "train").mkdir(parents=True, exist_ok=True)
    for first in range(0, size.images, _TAR_IMAGES):
        chosen = range(first, min(first + _TAR_IMAGES, size.images))
        path = root / "train" / f"images_{first // _TAR_IMAGES:03d}.tar"
        with tarfile.open(path, "w") as archive:
            for number in chosen:
                name, data = names[number], _jpeg(int(landmarks[number]), number)
                member = tarfile.TarInfo("/".join([*name[:3], f"{name}.jpg"]))
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        path.with_name(f"md5.{path.stem}.txt").write_text(f"{digest}  {path.name}\n")
    by_landmark = collections.defaultdict(list)
    for name, landmark in zip(names, landmarks, strict=True):
        by_landmark[int(landmark)].append(name)
    rows = (
        (n, f"http://x/{n}", int(landmark)) for n, landmark in zip(names, landmarks, strict=True)
    )
    _write_csv(root / "train.csv", ("id", "url", "landmark_id"), rows)
    rows = ((landmark, " ".join(images)) for landmark, images in sorted(by_landmark.items()))
    _write_csv(root / "train_clean.csv", ("landmark_id", "images"), rows)


def _jpeg(landmark: int, number: int) -> bytes:
    """A picture of coarse blocks, whose colours belong to the landmark, and noise."""
    blocks = np.random.default_rng(landmark).integers(30, 226, (4, 4, 3))
    pixels = np.kron(blocks, np.ones((_PIXELS // 4, _PIXELS // 4, 1), np.int64))
    pixels = pixels + np.random.default_rng([1, number]).integers(-30, 31, pixels.shape)
    encoded = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def _write_csv(path: pathlib.Path, columns: Sequence[str], rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def overrides(workdir: pathlib.Path, size: Size) -> dict[str, Any]:
    """The fields of the quickstart that change.

    Args:
      workdir: holds the files and the prepared data.
      size: of data set and run.
    """
    return {
        "data.name": "gldv2_clean",
        "data.root": str(workdir / "files"),
        "data.tfds_dir": str(workdir / "prepared"),
        "data.image_size": _PIXELS,
        "data.workers": 1,
        "model.global_dim": 32,  # or loopback between processes takes most of the time
        "train.steps": size.steps,
        "train.batch_size": 8 * _DEVICES,
        "train.learning_rate": 0.002,  # so that rounding grows little
        "train.shard_classifier": True,
        "train.warmup_steps": size.steps // 10,
        "train.log_every": max(size.steps // 60, 1),
        "train.eval_every": size.steps // 4,
        "train.eval_images": size.validation,
        "train.checkpoint_every": size.steps // 5,
        "train.tensorboard": False,
        "train.interrupted_status": _ENDED_STATUS,
    }


def _flags(fields: dict[str, Any]) -> list[str]:
    return ["--config=quickstart", *(f"--config.{name}={value}" for name, value in fields.items())]


class Job:
    """The processes of a training run, started as Slurm starts the tasks of a step.

    Args:
      flags_: of `delg train`.
      log: file that gets their output.
      processes: their number.
      job_id: of Slurm; a requeued job keeps it.
    """

    def __init__(
        self, flags_: Sequence[str], log: pathlib.Path, processes: int, job_id: int
    ) -> None:
        command = [sys.executable, "-m", "delg_jax", "train", *flags_]
        self.peak_bytes = 0
        self._processes = []
        with log.open("ab") as output:
            for number in range(processes):
                environment = _task(number, processes, job_id, log.parents[1] / "compiled")
                self._processes.append(
                    subprocess.Popen(
                        command,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        start_new_session=True,
                    )
                )
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._measure_memory, daemon=True)
        self._watch.start()

    def _measure_memory(self) -> None:
        while not self._ended.wait(1.0):
            for process in self._processes:
                self.peak_bytes = max(self.peak_bytes, _resident_bytes(process.pid))

    def running(self) -> bool:
        """Whether no process has ended."""
        return all(process.poll() is None for process in self._processes)

    def send(self, number: signal.Signals, only: int | None = None) -> None:
        """Sends a signal to the tasks of all processes, or of one."""
        for process in self._processes if only is None else [self._processes[only]]:
            if process.poll() is None:
                os.killpg(process.pid, number)

    def close(self) -> None:
        """Kills what is left of the job."""
        self.send(signal.SIGKILL)
        self.wait(0)

    def wait(self, seconds: float) -> list[int]:
        """Exit statuses of all processes; kills them if they take longer."""
        end = time.monotonic() + seconds
        for process in self._processes:
            try:
                process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
        self._ended.set()
        self._watch.join()
        return [process.wait() for process in self._processes]


def _task(number: int, processes: int, job_id: int, compiled: pathlib.Path) -> dict[str, str]:
    """The environment of a task of Slurm with virtual devices."""
    devices = _DEVICES // processes
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        "SLURM_JOB_ID": str(job_id),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(processes),
        "SLURM_STEP_NUM_TASKS": str(processes),
        "SLURM_STEP_TASKS_PER_NODE": str(processes),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
    }


def _resident_bytes(process: int) -> int:
    """Resident memory of a process and its children; 0 if it has ended."""
    total = 0
    try:
        children = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()
        for one in (process, *children):
            lines = pathlib.Path(f"/proc/{one}/status").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    except OSError:
        return total
    return total


def train(
    workdir: pathlib.Path, fields: dict[str, Any], processes: int, interruptions: Sequence[str] = ()
) -> dict[str, Any]:
    """Trains to the end, through interruptions at random steps.

    Args:
      workdir: of the run.
      fields: of the configuration.
      processes: their number.
      interruptions: kinds of `_KINDS`, in order.

    Returns:
      `seconds`, `peak_bytes` of a process with its workers, and `interruptions`: for each its kind,
      the step at which it came, the exit statuses, the seconds from SIGTERM to the end of the last
      checkpoint (None if there was no SIGTERM), and the step at which the run resumed.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    done = workdir / "measured.json"
    if done.exists():
        return json.loads(done.read_text())
    rng = np.random.default_rng(len(interruptions))
    # At least 6 % of the run apart, so that each start makes progress
    steps = np.sort(rng.choice(np.arange(5, 95, 10), len(interruptions), replace=False))
    targets = list(fields["train.steps"] * (steps + rng.integers(0, 5, len(steps))) // 100)
    flags_ = [*_flags(fields), f"--workdir={workdir}"]
    start, peak, happened = time.monotonic(), 0, []
    job_id = int(rng.integers(1, 4000))
    log = workdir / "run.log"
    for kind, target in zip(interruptions, targets, strict=True):
        with contextlib.closing(Job(flags_, log, processes, job_id)) as job:
            while job.running() and last_step(workdir) < target:
                time.sleep(0.1)
            if not job.running():
                raise _failed(workdir, job)
            happened.append(_interrupt(job, kind, workdir, rng.integers(processes)))
        peak = max(peak, job.peak_bytes)
    with contextlib.closing(Job(flags_, log, processes, job_id)) as job:
        if any(job.wait(_LONG_SECONDS)):
            raise _failed(workdir, job)
    found = {
        "seconds": time.monotonic() - start,
        "peak_bytes": max(peak, job.peak_bytes),
        "interruptions": happened,
    }
    done.write_text(json.dumps(found))
    return found


def _failed(workdir: pathlib.Path, job: Job) -> UserError:
    return UserError("workdir", str(workdir), f"training ended with {job.wait(0)}; see run.log")


def _interrupt(job: Job, kind: str, workdir: pathlib.Path, chosen: int) -> dict[str, Any]:
    """Interrupts a job and waits for its end."""
    step, before = last_step(workdir), set(_checkpoints(workdir))
    start = time.time()
    if kind == "killed":
        job.send(signal.SIGKILL, chosen)
        time.sleep(0.5)
        job.send(signal.SIGKILL)  # as srun does with the others
    else:
        job.send(signal.SIGTERM, chosen if kind == "preempted" else None)
    statuses = job.wait(_LONG_SECONDS if kind == "preempted" else _GRACE_SECONDS)
    new = set(_checkpoints(workdir)) - before
    ends = [(workdir / "checkpoints" / str(number)).stat().st_mtime for number in new]
    return {
        "kind": kind,
        "step": step,
        "statuses": statuses,
        "seconds_to_checkpoint": max(ends) - start if ends and kind != "killed" else None,
        "resumes_at": max(_checkpoints(workdir), default=0),
    }


def last_step(workdir: pathlib.Path) -> int:
    """The last step of which there is a record; 0 if there is none."""
    path = workdir / "logs" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (json.JSONDecodeError, KeyError):
            continue  # is being written
    return 0


def _checkpoints(workdir: pathlib.Path) -> Iterator[int]:
    folder = workdir / "checkpoints"
    if folder.exists():
        yield from (int(path.name) for path in folder.iterdir() if path.name.isdigit())


def difference(one: pathlib.Path, other: pathlib.Path, config: ml_collections.ConfigDict) -> float:
    """Distance of all parameters from those of another run, relative to their norm; 0 if equal."""
    from delg_jax.training.trained_network import load_model

    found, expected = (
        traverse_util.flatten_dict(load_model(config, folder)[1], sep="/")
        for folder in (one, other)
    )
    squares = [0.0, 0.0]
    for name, value in expected.items():
        wanted = np.asarray(value, np.float64)
        squares[0] += float(np.sum((np.asarray(found[name], np.float64) - wanted) ** 2))
        squares[1] += float(np.sum(wanted**2))
    return (squares[0] / squares[1]) ** 0.5


def waiting_share(workdir: pathlib.Path) -> float:
    """Median share of the time that steps waited for input."""
    lines = (workdir / "logs" / "metrics.jsonl").read_text().splitlines()
    shares = [json.loads(line).get("input_wait_share") for line in lines]
    return float(np.median([share for share in shares if share is not None]))


def input_rate(config: ml_collections.ConfigDict, batches: int) -> float:
    """Images per second of the training input alone, in one process with its workers."""
    from delg_jax.data import open_training, pipeline

    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags; this process is new
    source = open_training(config.data).train
    settings = pipeline.InputSettings.of(config.data)
    iterator = pipeline.training_batches(source, settings, config.train.batch_size, 0)
    for _ in range(3):  # fills the buffers
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return batches * config.train.batch_size / (time.perf_counter() - start)


def step_rate(config: ml_collections.ConfigDict, classes: int, steps: int) -> float:
    """Images per second of the step alone, on random images and all devices of one process."""
    from experiments.benchmarks import training_options

    config = training_options.configured(config, {"model.num_classes": classes})
    return training_options.measure(config, steps)["images_per_second"]


def _alone(function: Any, *given: Any) -> float:
    """Calls a function in its own process with all virtual devices."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={_DEVICES}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *given).result()


def _claim(workdir: pathlib.Path, size: dict[str, int]) -> None:
    """Refuses a folder with data and runs of another size."""
    path = workdir / "size.json"
    if path.exists() and json.loads(path.read_text()) != size:
        raise UserError("--workdir", str(workdir), "holds runs of another size")
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(size))


def _make_data(workdir: pathlib.Path, fields: dict[str, Any], size: Size) -> dict[str, float]:
    """Writes the files and prepares them; returns how long both took."""
    done = workdir / "data.json"
    if done.exists():
        return json.loads(done.read_text())
    start = time.monotonic()
    write_files(workdir / "files", size)
    written = time.monotonic()
    data = {name: value for name, value in fields.items() if name.startswith("data.")}
    prepared = subprocess.run(
        [sys.executable, "-m", "delg_jax", "prepare", *_flags(data)],
        check=False,
        capture_output=True,
        text=True,
    )
    if prepared.returncode:
        last = prepared.stderr.strip().splitlines()[-1]
        raise UserError("delg prepare", prepared.returncode, f"failed: {last}")
    found = {"write_seconds": written - start, "prepare_seconds": time.monotonic() - written}
    done.write_text(json.dumps(found))
    return found


def measure(workdir: pathlib.Path, size: Size) -> dict[str, Any]:
    """Runs everything; see the docstring of the module.

    Args:
      workdir: gets files, prepared data and runs.
      size: of data and runs.

    Returns:
      What the table shows.
    """
    found: dict[str, Any] = {"size": dataclasses.asdict(size)}
    _claim(workdir, found["size"])
    fields = overrides(workdir, size)
    found |= _make_data(workdir, fields, size)
    config = configuration.override(config_files.run("quickstart"), fields)
    found["input_images_per_second"] = _alone(input_rate, config, max(size.steps // 3, 5))
    found["step_images_per_second"] = _alone(step_rate, config, size.classes, size.steps // 5)
    kinds = [_KINDS[number % len(_KINDS)] for number in range(size.interruptions)]
    np.random.default_rng(0).shuffle(kinds)
    runs = {
        "undisturbed": (size.processes, ()),
        "interrupted": (size.processes, kinds),
        "other processes": (size.others, ()),
    }
    found["runs"] = {}
    for name, (processes, interruptions) in runs.items():
        folder = workdir / name.replace(" ", "_")
        found["runs"][name] = {
            "processes": processes,
            **train(folder, fields, processes, interruptions),
            "waiting_share": waiting_share(folder),
            "difference": difference(folder, workdir / "undisturbed", config),
        }
    return found


def table(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    size = found["size"]
    lines = [
        f"{size['images']} images of {size['classes']} classes, {_PIXELS} x {_PIXELS} pixels; "
        f"written in {found['write_seconds']:.0f} s, prepared in {found['prepare_seconds']:.0f} s.",
        f"{size['steps']} steps of {8 * _DEVICES} images on {_DEVICES} virtual devices of "
        f"{os.cpu_count()} cores, with sharded classifiers.",
        f"Images per second: input alone {found['input_images_per_second']:.0f} (one process), "
        f"step alone {found['step_images_per_second']:.0f}.",
        "",
        "| run | processes | seconds | waits for input | memory of a process, MB | difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, run_ in found["runs"].items():
        equal = run_["difference"]
        lines.append(
            f"| {name} | {run_['processes']} | {run_['seconds']:.0f} "
            f"| {100 * run_['waiting_share']:.0f} % | {run_['peak_bytes'] / 1e6:.0f} "
            f"| {f'{equal:.1e}' if equal else 'equal bits'} |"
        )
    lines += [
        "",
        "The difference is the distance of all parameters from those of the undisturbed run, "
        "relative to their norm. Sums over other numbers of processes are rounded differently.",
        "",
        "| interruption | at step | SIGTERM to checkpoint, s | resumes at | exit statuses |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for one in found["runs"]["interrupted"]["interruptions"]:
        seconds = one["seconds_to_checkpoint"]
        lines.append(
            f"| {one['kind']} | {one['step']} | {'' if seconds is None else f'{seconds:.1f}'} "
            f"| {one['resumes_at']} | {', '.join(map(str, one['statuses']))} |"
        )
    return "\n".join(lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    text = "Folder of files, prepared data and runs; about 2 GB for full."
    arguments.define_path(values, "workdir", None, text, required=True)
    text = "quick takes minutes."
    flags.DEFINE_enum("size", "full", list(SIZES), text, flag_values=values)
    for field in dataclasses.fields(Size):
        text = f"Replaces the {field.name} of --size."
        flags.DEFINE_integer(field.name, None, text, 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures and prints the table."""
    given = {field.name: values[field.name].value for field in dataclasses.fields(Size)}
    changed = {name: value for name, value in given.items() if value is not None}
    size = dataclasses.replace(SIZES[values.size], **changed)
    if size.images < size.classes:
        raise UserError("--images", size.images, f"must be at least --classes={size.classes}")
    for name in ("processes", "others"):
        if _DEVICES % getattr(size, name):
            raise UserError(f"--{name}", getattr(size, name), f"must divide {_DEVICES}")
    workdir = pathlib.Path(values.workdir).resolve()
    with interruptible():  # so that the processes do not outlive this one
        found = measure(workdir, size)
    text = f"{table(found)}\n"
    made_from = dataclasses.asdict(size)
    harness.write_result(values.results, "training_at_scale", found, text, config=made_from)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
