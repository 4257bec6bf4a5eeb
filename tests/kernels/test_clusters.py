"""Clusters of thread blocks: which GPUs are asked for them, and what is noticed when their barriers are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import nvrtc
import pytest
from cases_diffusion import IN_CLUSTERS, in_clusters
from framed import FramedDevice
from kernel_cases import all_cases
from ptx_parse import PtxError
from simulated_cupy import SimulatedCupy, installed, ptx_device

from gpu_tomoclass.device.cuda import OPTIONS, CudaDevice
from gpu_tomoclass.device.dry import DryDevice
from gpu_tomoclass.device.sources import kernel_source, kernels_folder
from gpu_tomoclass.features.accelerated.diffusion import CLUSTER_THREADS, smallest_cluster

MEET = "ALL_BLOCKS_MEET()\n"
MISTAKES = {
    "no meeting after the largest": (f"            {MEET}            if (me == 0)", "            if (me == 0)"),
    "no meeting after the move": (f"                {MEET}", ""),
    "a row is not given to the block below": (
        "if (run.bottom == n_rows) below[x]",
        "if (run.bottom > n_rows) below[x]",
    ),
    "the largest is not sent to all": ("if (me < CLUSTER) *(int*)", "if (me < 1) *(int*)"),
}


@pytest.fixture(params=MISTAKES)
def kernels(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The sources, with a mistake in the clusters of diffusion.cu."""
    right, wrong = MISTAKES[request.param]
    for path in kernels_folder().iterdir():
        text = path.read_text()
        if path.name == "diffusion.cu":
            assert text.count(right) == 1
            text = text.replace(right, wrong)
        (tmp_path / path.name).write_text(text)
    return tmp_path


def test_planted_mistakes_are_noticed(kernels: Path) -> None:
    """By another result of blocks that run thread by thread in some order, and by the interpreter's races or result."""
    case = all_cases()["anisotropic_diffusion in clusters"]
    inputs = case.inputs(IN_CLUSTERS[1])
    expected = case.expected(inputs)
    results = [in_clusters(FramedDevice(build="checked", seed=seed, kernels=kernels), inputs) for seed in (0, 1, 2)]
    assert any(not np.array_equal(result, expected) for result in results)
    device, cupy = ptx_device(kernels=kernels, counted=False)
    cupy.launches.clear()
    found = in_clusters(device, inputs)
    assert any(launch.faults for launch in cupy.launches) or not np.array_equal(found, expected)


def run_pair(*, n_blocks: int = 2, rank: int = 0, given: int = 128) -> np.ndarray:
    """Blocks of clusters of two that read what the block ``rank`` of theirs has written."""
    source = """
    extern "C" __global__ void __cluster_dims__(2, 1, 1) pair(int* __restrict__ result, int rank) {
        extern __shared__ int memory[];
        memory[threadIdx.x] = blockIdx.x;
        __cluster_barrier_arrive();
        __cluster_barrier_wait();
        result[32 * blockIdx.x + threadIdx.x] = *(int*)__cluster_map_shared_rank(memory + threadIdx.x, rank);
    }"""
    with installed(SimulatedCupy(architecture=90)) as cupy:
        module = cupy.RawModule(code=source, options=("-DCLUSTER=2", f"-DSHARED_BYTES={given}"))
        result = cupy.zeros((32 * n_blocks,), np.int32)
        module.get_function("pair")((n_blocks,), (32,), (result, np.int32(rank)), shared_mem=given)
        return np.asarray(result)


def test_accesses_beyond_a_cluster_are_errors() -> None:
    assert run_pair(n_blocks=4, rank=1).reshape(4, 32)[:, 0].tolist() == [1, 1, 3, 3]
    with pytest.raises(PtxError, match="block 2 of a cluster of 2"):
        run_pair(rank=2)
    with pytest.raises(PtxError, match="no multiple of the cluster"):
        run_pair(n_blocks=3)
    with pytest.raises(PtxError, match="shared access of 4 bytes"):
        run_pair(given=64)


@pytest.mark.parametrize(("architecture", "blocks", "n_bytes"), [(90, 16, 227), (80, 0, 163), (120, 0, 99)])
def test_a_gpu_tells_what_it_has(architecture: int, blocks: int, n_bytes: int) -> None:
    with installed(SimulatedCupy(architecture=architecture)):
        device = CudaDevice()
    assert (device.cluster_blocks, device.shared_bytes) == (blocks, n_bytes * 1024)


def test_large_clusters_are_tried_before_they_are_used() -> None:
    """A part of a GPU may not have 16 multiprocessors side by side; then clusters of 8 are used, or none."""
    for largest in (8, 0):
        with installed(SimulatedCupy(architecture=90, largest_cluster=largest)):
            assert CudaDevice().cluster_blocks == largest


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((100, 100), 1), ((317, 428), 16), ((400, 400), 16), ((416, 416), 16), ((432, 432), 0), ((1024, 1024), 0)],
)
def test_the_smallest_cluster_that_holds_a_plane(shape: tuple[int, int], blocks: int) -> None:
    device = DryDevice("cuda")
    assert smallest_cluster(device, *shape) == 0  # as on GPUs without clusters
    device.cluster_blocks, device.shared_bytes = 16, 227 * 1024
    assert smallest_cluster(device, *shape) == blocks


def test_nothing_is_spilled_at_full_size() -> None:
    """Budgets are of the small blocks of tests."""
    defines = {"CLUSTER": 16, "SHARED_BYTES": 227 * 1024, "THREADS": CLUSTER_THREADS}
    options = (*OPTIONS, *(f"-D{name}={value}" for name, value in defines.items()))
    for architecture in nvrtc.architectures(options):
        used = nvrtc.resources(kernel_source("diffusion.cu").text, options, architecture)["diffusion_cluster"]
        assert used.spills == 0
        assert used.registers * CLUSTER_THREADS <= 65536
