import importlib.util

import pytest

from delg_jax import clusters
from delg_jax.errors import UserError

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "n[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
TPU = {"TPU_WORKER_HOSTNAMES": "t0,t1,t2,t3", "TPU_WORKER_ID": "1"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}


@pytest.fixture
def packages(monkeypatch):
    """Optional packages that seem to be installed."""
    present = {"kubernetes", "mpi4py"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in present or None)
    return present


def arguments(environment, name="auto", coordinator=""):
    found = clusters.find(name, environment, coordinator)
    return dict(found.arguments)


def refused(name, environment, names):
    with pytest.raises(UserError, match=names):
        clusters.find(name, environment)


def test_a_workstation_and_none_have_no_cluster():
    assert clusters.find("auto", {}) is None
    assert clusters.find("none", SLURM) is None
    assert clusters.find("auto", {"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert clusters.find("auto", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None


def test_a_task_of_srun_joins_the_others_with_all_devices_of_its_node():
    assert arguments(SLURM) == {
        "cluster_detection_method": "slurm",
        "num_processes": 4,
        "process_id": 2,
        "local_device_ids": [],
    }


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "SLURM_LOCALID": "3"}, [3]),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2),2", "SLURM_LOCALID": "1"}, [1]),
        ({"SLURM_STEP_TASKS_PER_NODE": "1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_GPUS_PER_TASK": "1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_TRES_PER_TASK": "gres/gpu:1"}, []),
    ],
)
def test_tasks_of_one_node_share_its_devices_unless_slurm_did(variables, devices):
    assert arguments({**SLURM, **variables})["local_device_ids"] == devices


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # salloc with an interactive step
        {"SLURM_STEP_NODELIST": None, "SLURM_STEP_NUM_TASKS": None},  # the script of sbatch
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},  # srun -n1
    ],
)
def test_a_shell_of_an_allocation_does_not_wait_for_tasks_that_never_start(changes):
    environment = {name: value for name, value in {**SLURM, **changes}.items() if value}
    found = clusters.find("auto", environment)
    assert found.arguments is None
    several = environment["SLURM_NTASKS"] == "4"
    assert ("has 4 tasks, but srun did not start" in found.text) == several


def test_a_given_coordinator_replaces_the_one_of_the_cluster():
    assert arguments(SLURM, coordinator="n1:1234") == {
        "coordinator_address": "n1:1234",
        "cluster_detection_method": "deactivate",
        "num_processes": 4,
        "process_id": 2,
        "local_device_ids": [],
    }


def test_open_mpi_is_found(packages):
    assert arguments(OPEN_MPI) == {
        "cluster_detection_method": "ompi",
        "num_processes": 8,
        "process_id": 5,
        "local_device_ids": [1],
    }
    assert clusters.find("auto", {**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}).arguments is None
    assert arguments({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"})["local_device_ids"] == []


def test_mpirun_inside_slurm_counts_its_own_processes():
    assert arguments({**SLURM, **OPEN_MPI})["num_processes"] == 8


def test_open_mpi_5_needs_mpi4py_or_a_coordinator(packages):
    fifth = {name: value for name, value in OPEN_MPI.items() if "orte" not in name}
    assert arguments(fifth)["cluster_detection_method"] == "mpi4py"
    assert arguments(fifth, coordinator="n1:1")["coordinator_address"] == "n1:1"
    packages.clear()
    refused("auto", fifth, "--coordinator.* 8 processes .*Open MPI 5")


def test_a_tpu_pod_is_found():
    assert arguments(TPU) == {"cluster_detection_method": "gketpu"}
    assert clusters.find("auto", TPU).text == "TPU pod of 4 hosts"
    slices = {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}
    assert clusters.find("auto", slices).text == "TPU pod of 2 hosts"
    google = {"TPU_ML_PLATFORM": "JAX"}
    assert arguments(google) == {"cluster_detection_method": "gcetpu"}
    assert clusters.find("auto", {**google, "JAX_PLATFORMS": "cpu"}) is None
    assert clusters.find("auto", {**google, "TPU_SKIP_MDS_QUERY": "1"}) is None


def test_a_pod_of_an_indexed_job_is_found_if_it_can_ask_kubernetes(packages):
    assert arguments(KUBERNETES) == {}
    packages.clear()
    refused("auto", KUBERNETES, r"pod 3 .*Kubernetes.*jax\[k8s\]")


def test_only_the_named_cluster_is_looked_for(packages):
    both = {**SLURM, **OPEN_MPI}
    assert arguments(both, "slurm")["num_processes"] == 4
    assert arguments({}, "mpi4py") == {"cluster_detection_method": "mpi4py"}
    refused("ompi", SLURM, "--cluster = 'ompi': ")
    packages.clear()
    for name in ("mpi4py", "pbs"):
        refused(name, {}, f"--cluster = '{name}': ")


def test_processes_that_are_no_tasks_see_all_devices():
    assert clusters.local_devices({}) == []
    script = {name: value for name, value in SLURM.items() if "STEP" not in name}  # of sbatch
    assert clusters.local_devices(script) == []


def test_a_variable_that_is_no_number_is_refused():
    refused("auto", {**SLURM, "SLURM_NTASKS": "four"}, "SLURM_NTASKS = 'four': ")
