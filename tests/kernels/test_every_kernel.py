"""Every case on every kind of device that needs no GPU; see ``kernel_cases.py`` and docs/devices.md."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from budget import FOLDER, budget_file, check_budget, ptx_results, stored_budget
from framed import FramedDevice
from kernel_cases import Case, all_cases, case_sizes
from sanitized_run import sanitized_sizes

from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.device.sources import kernels_folder

HERE = Path(__file__).parent


@cache
def small_result(name: str, i: int) -> np.ndarray:
    """What the CPU gives for a small size, compiled for speed."""
    case = all_cases()[name]
    return case.run(NativeDevice(threads=1, kernels=case.kernels), case.inputs(case.small_sizes[i]))


@pytest.mark.parametrize(("name", "i"), case_sizes("sizes"))
def test_agrees_and_stays_within_its_arrays(name: str, i: int) -> None:
    """With the plan for a CPU and with the one for a GPU."""
    case = all_cases()[name]
    inputs = case.inputs(case.sizes[i])
    results = []
    for gpu_plan in (False, True):
        device = FramedDevice(threads=2, kernels=case.kernels, gpu_plan=gpu_plan)
        results.append(case.run(device, inputs))
        device.check_frames()
    case.check(inputs, *results)


@pytest.mark.parametrize(("name", "i"), case_sizes("small_sizes"))
def test_thread_by_thread(name: str, i: int) -> None:
    """The same bits, in any order of threads and blocks, and with poison in unwritten shared memory."""
    case = all_cases()[name]
    for seed in (0, 1, 2):  # 0 is in order
        device = FramedDevice(build="checked", seed=seed, kernels=case.kernels)
        result = case.run(device, case.inputs(case.small_sizes[i]))
        device.check_frames()
        assert_same(case, result, small_result(name, i))


@pytest.mark.parametrize(("name", "i"), case_sizes("small_sizes"))
def test_compiled_for_a_gpu(name: str, i: int) -> None:
    """NVRTC's PTX, interpreted: the same result, no race, nothing out of bounds, no read of unwritten shared memory.

    And within its budget: registers, shared memory, spills on every architecture, counts of the interpreter. Both need
    the interpreted launches, which take most of the time of these tests.
    """
    case = all_cases()[name]
    result, launches = ptx_results(case, i, counted=i == 0)
    for launch in launches:
        assert not launch.faults, f"{launch.kernel}: {dict(launch.faults)}"
    case.compare(result, small_result(name, i), case.ptx_tolerance)
    case.check(case.inputs(case.small_sizes[i]), result)
    if i == 0:
        check_budget(case)


@pytest.mark.parametrize("part", range(4))
def test_under_the_sanitizers(tmp_path: Path, part: int) -> None:
    """A process with AddressSanitizer and UndefinedBehaviorSanitizer runs small sizes, with both plans.

    It needs seconds to start, so it runs a quarter of the cases.
    """
    cases = dict(list(all_cases().items())[part::4])
    run = run_sanitized(tmp_path, *cases)
    assert run.returncode == 0, f"{run.stdout.splitlines()[-1:]}: {run.stderr[-4000:]}"
    with np.load(tmp_path / "results.npz") as results:
        n_sizes = [len(sanitized_sizes(case, plan)) for case in cases.values() for plan in ("cpu", "gpu")]
        assert len(results.files) == sum(n_sizes)
        for key in results.files:
            name, _, i = key.split(" | ")
            assert_same(cases[name], results[key], small_result(name, int(i)))


def test_no_stale_budget() -> None:
    assert set(FOLDER.glob("*.json")) == {budget_file(name) for name in all_cases()}


def test_every_source_has_a_case() -> None:
    """The first small size of some case launches it, with the plan for a GPU or, for ``*_cpu.cu``, for a CPU.

    Budgets name what the plan for a GPU launches; ``test_compiled_for_a_gpu`` holds them against that.
    """
    missing = {path.name for path in kernels_folder().glob("*.cu")}
    missing -= {key.partition(":")[0] for name in all_cases() for key in stored_budget(name)["kernels"]}
    assert all(file.endswith("_cpu.cu") for file in missing), missing
    for case in all_cases().values():
        if missing:
            device = FramedDevice(threads=1, kernels=case.kernels)
            case.run(device, case.inputs(case.small_sizes[0]))
            missing -= device.launched_files()
    assert not missing


def assert_same(case: Case, result: np.ndarray, other: np.ndarray) -> None:
    """Two plans may add in another order; then the case has a tolerance."""
    case.compare(result, other, case.tolerance)


def run_sanitized(folder: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Run ``sanitized_run.py`` with the sanitizer's library loaded before Python."""
    compiler = os.environ.get("CXX", "g++")
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    library = Path(found.stdout.strip())
    assert library.is_absolute(), f"{compiler} has no address sanitizer library"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library.resolve()),
        "ASAN_OPTIONS": "detect_leaks=0,halt_on_error=1",  # Python itself does not free everything at its end
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, str(HERE / "sanitized_run.py"), str(folder / "results.npz"), *what]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)


@pytest.mark.parametrize(("bug", "message"), [(4, "heap-buffer-overflow"), (5, "out of bounds for type")])
def test_the_sanitizers_find_planted_bugs(tmp_path: Path, bug: int, message: str) -> None:
    """A bounds check removed; a shared array too short."""
    run = run_sanitized(tmp_path, f"bug {bug}")
    assert run.returncode != 0
    assert message in run.stderr
    assert "kernels/box_phases.cu" in run.stderr
