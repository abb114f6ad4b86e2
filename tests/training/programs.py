"""`delg` as programs of their own, on devices and processes of one's choice."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import ml_collections

from tests.tiny import command_line

ROOT = Path(__file__).resolve().parents[2]


def start(
    config: ml_collections.ConfigDict,
    workdir: Path,
    devices: int,
    flags: tuple[str, ...] = (),
    verb: str = "train",
) -> subprocess.Popen:
    """Starts a verb on `devices` virtual devices; output is kept."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": os.environ["DELG_TEST_CACHE"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "delg_jax", verb, *command_line(config)]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that a signal can go to it and its workers alone
    )


def finish(*programs: subprocess.Popen) -> list[str]:
    """Waits for programs, which must succeed, and returns their output."""
    outputs = [program.communicate(timeout=600)[0] for program in programs]
    assert [program.returncode for program in programs] == [0] * len(programs), outputs
    return outputs


def start_processes(
    config: ml_collections.ConfigDict,
    workdir: Path,
    processes: int,
    devices: int,
    flags: tuple[str, ...] = (),
    verb: str = "train",
) -> list[subprocess.Popen]:
    """Starts processes that work together, each on `devices` virtual devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = (*flags, f"--coordinator={address}", f"--num_processes={processes}")
    return [
        start(config, workdir, devices, (*shared, f"--process_id={number}"), verb)
        for number in range(processes)
    ]
