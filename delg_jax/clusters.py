"""Finds the processes that a scheduler started together: Slurm, Open MPI, TPU pods, Kubernetes.

`jax.distributed.initialize()` finds them, too, but does not return where a shell inside an
allocation looks like one task of several. Here the variables of the environment decide whether
there are several processes, and JAX then reads the coordinator from them.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import Any

from delg_jax.errors import UserError, require_choice

FLAG = "--cluster"
_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
_ONE_PER_NODE = re.compile(r"1(\(x\d+\))?")  # of SLURM_STEP_TASKS_PER_NODE, as in 1(x4)

Variables = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What the environment says about the processes of a job.

    Attributes:
      text: what was found, for the log.
      arguments: of `jax.distributed.initialize`; None if there is only this process.
    """

    text: str
    arguments: Mapping[str, Any] | None = None


def find(name: str, environment: Variables, coordinator: str = "") -> Cluster | None:
    """Looks for the other processes of this job.

    Args:
      name: `auto`, or the only cluster to look for; one of `CLUSTERS`.
      environment: environment variables.
      coordinator: host:port of process 0 if the user gave it; "" lets JAX find it.

    Returns:
      What was found; None if nothing was, or `name` is `none`.

    Raises:
      UserError: for an unknown name, a named cluster that is not there, or one in which the
        coordinator cannot be found.
    """
    require_choice(FLAG, name, CLUSTERS)
    if name == "none":
        return None
    for candidate, look in _FINDERS.items():
        if name in ("auto", candidate):
            found = look(environment, coordinator)
            if found is not None:
                return found
    if name == "mpi4py":
        if importlib.util.find_spec("mpi4py") is None:
            raise UserError(FLAG, name, "needs the package mpi4py")
        return Cluster("MPI", {"cluster_detection_method": "mpi4py"})
    if name != "auto":
        raise UserError(FLAG, name, "is not what started this process; auto looks for any cluster")
    return None


def _open_mpi(environment: Variables, coordinator: str) -> Cluster | None:
    """Mpirun of Open MPI; the fifth version no longer says where its first process runs."""
    count = _count("OMPI_COMM_WORLD_SIZE", environment)
    if count is None:
        return None
    if count == 1:
        return Cluster("Open MPI with one process")
    number, devices = _count("OMPI_COMM_WORLD_RANK", environment) or 0, local_devices(environment)
    text = f"Open MPI, process {number} of {count}"
    if coordinator or "OMPI_MCA_orte_hnp_uri" in environment:
        return Cluster(text, _arguments("ompi", coordinator, count, number, devices))
    if importlib.util.find_spec("mpi4py") is None:
        rule = f"must be given as host:port for these {count} processes of Open MPI 5, or install "
        rule += f"mpi4py; {FLAG}=none lets each process run alone"
        raise UserError("--coordinator", "", rule)
    return Cluster(text, {"cluster_detection_method": "mpi4py", "local_device_ids": devices})


def _slurm(environment: Variables, coordinator: str) -> Cluster | None:
    """A task that srun started; the shell of salloc or sbatch runs alone."""
    if "SLURM_JOB_ID" not in environment:
        return None
    job = f"Slurm job {environment['SLURM_JOB_ID']}"
    tasks = _count("SLURM_NTASKS", environment) or 1
    # A shell inside an allocation keeps SLURM_NTASKS of the allocation; its own step has one task
    started = _count("SLURM_STEP_NUM_TASKS", environment) or tasks
    if started == 1 or not all(variable in environment for variable in _SLURM):
        text = f"{job} with one task"
        if tasks > 1:
            text = f"{job} has {tasks} tasks, but srun did not start this process as one of several"
        return Cluster(text)
    number, devices = _count("SLURM_PROCID", environment) or 0, local_devices(environment)
    arguments = _arguments("slurm", coordinator, started, number, devices)
    return Cluster(f"{job}, process {number} of {started}", arguments)


def _tpu(environment: Variables, coordinator: str) -> Cluster | None:
    """A TPU pod: hosts named by the environment (Kubernetes), or by Google Cloud's metadata."""
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    slices = _count("MEGASCALE_NUM_SLICES", environment) or 1
    count = len(hosts.split(",")) * slices if hosts else 0
    given = {"coordinator_address": coordinator} if coordinator else {}
    if count > 1:
        return Cluster(f"TPU pod of {count} hosts", {"cluster_detection_method": "gketpu", **given})
    # Importing JAX sets this on a machine with TPUs; without names, the metadata server knows
    on_tpu = environment.get("TPU_ML_PLATFORM") == "JAX"
    if hosts or not on_tpu or "TPU_SKIP_MDS_QUERY" in environment:
        return None
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return None
    return Cluster("TPU machine", {"cluster_detection_method": "gcetpu", **given})


def _kubernetes(environment: Variables, coordinator: str) -> Cluster | None:
    """A pod of an indexed Job or JobSet; other pods are one process."""
    index = environment.get("JOB_COMPLETION_INDEX")
    if index is None or "KUBERNETES_SERVICE_HOST" not in environment:
        return None
    if importlib.util.find_spec("kubernetes") is None:
        rule = f"found pod {index} of an indexed Kubernetes Job; to find the others, install "
        rule += "jax[k8s], or give --coordinator, --num_processes and --process_id; "
        rule += f"{FLAG}=none lets each pod run alone"
        raise UserError(FLAG, "auto", rule)
    given = {"coordinator_address": coordinator} if coordinator else {}
    return Cluster(f"Kubernetes Job, pod {index}", given)


_FINDERS: Mapping[str, Callable[[Variables, str], Cluster | None]] = {
    "ompi": _open_mpi,
    "slurm": _slurm,
    "tpu": _tpu,
    "kubernetes": _kubernetes,
}
CLUSTERS = ("auto", "none", *_FINDERS, "mpi4py")


def local_devices(environment: Variables) -> list[int]:
    """GPUs of this process by their number on the host; empty for all that are visible.

    Tasks of Slurm and ranks of Open MPI that share a host get one each, as JAX does it. Tasks
    alone on their host, or with GPUs of their own, use all that they see.
    """
    if "OMPI_COMM_WORLD_SIZE" in environment:
        alone = _count("OMPI_COMM_WORLD_LOCAL_SIZE", environment) == 1
        return [] if alone else [_count("OMPI_COMM_WORLD_LOCAL_RANK", environment) or 0]
    if not all(variable in environment for variable in _SLURM):
        return []
    # With GPUs of its own, a task counts them from 0, whatever its number on the node is
    own = "SLURM_GPUS_PER_TASK" in environment
    own = own or "gpu" in environment.get("SLURM_TRES_PER_TASK", "")
    alone = bool(_ONE_PER_NODE.fullmatch(environment.get("SLURM_STEP_TASKS_PER_NODE", "")))
    return [] if own or alone else [_count("SLURM_LOCALID", environment) or 0]


def _arguments(
    method: str, coordinator: str, count: int, number: int, devices: list[int]
) -> dict[str, Any]:
    """Arguments for JAX, which looks for the coordinator by `method` if it is not known.

    Args:
      method: JAX's name of the cluster.
      coordinator: host:port, or "".
      count: number of processes.
      number: of this process.
      devices: GPUs of this process by their number on the host; empty for all that are visible.
    """
    known = {"num_processes": count, "process_id": number, "local_device_ids": devices}
    if coordinator:
        return {
            **known,
            "coordinator_address": coordinator,
            "cluster_detection_method": "deactivate",
        }
    return {**known, "cluster_detection_method": method}


def _count(variable: str, environment: Variables) -> int | None:
    """A whole number of the environment; None if it is not set."""
    text = environment.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UserError(variable, text, f"must be a whole number; {FLAG}=none ignores it")
    return int(text)
