"""CuPy as it is installed here: its import, driver, GPUs, cache folder and pool. The only module that imports it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_tomoclass.device.trust import reason_against, temporary_folder
from gpu_tomoclass.errors import ResourceError, UsageError

OTHERWISE = "choose --device native or numpy"


def gpu_of(values: object) -> int | None:
    """The number of the GPU that a CuPy array lies on; None if it is none. CuPy is not imported for that."""
    if not hasattr(values, "__cuda_array_interface__"):
        return None
    return int(values.device.id) if hasattr(values, "device") and hasattr(values.device, "id") else 0


@contextmanager
def cupys_own_allocator() -> Iterator[None]:
    """Whatever is imported in this block, CuPy's arrays stay in CuPy's pool, which the device asks and empties.

    ``import cuml`` gives CuPy the allocator of RMM, which asks the driver for every array.
    """
    before = sys.modules["cupy"].cuda.get_allocator() if "cupy" in sys.modules else None
    try:
        yield
    finally:
        cupy = sys.modules.get("cupy")
        if cupy is not None:
            cupy.cuda.set_allocator(before or cupy.get_default_memory_pool().malloc)


def free_cupys_pool() -> None:
    """Give memory that CuPy's pool keeps for later arrays back to the driver, for libraries that do not ask CuPy."""
    cupy = sys.modules.get("cupy")
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()


def visible_gpus() -> list[str]:
    """Names that CUDA_VISIBLE_DEVICES gives to the GPUs that this process sees.

    Raises
    ------
    ResourceError
        If CuPy or the driver does not work.
    """
    cupy = import_cupy()
    check_driver(cupy)
    n_gpus = int(cupy.cuda.runtime.getDeviceCount())
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(i) for i in range(n_gpus)])[:n_gpus]


def prepare_cupy_cache() -> tuple[str, ...]:
    """CuPy makes its cache folder when it is imported and fails where it cannot: give it one that can be written."""
    if "cupy" in sys.modules:
        return ()
    named = os.environ.get("CUPY_CACHE_DIR")
    wanted = Path(named) if named else Path(os.path.expanduser("~")) / ".cupy" / "kernel_cache"
    problem = reason_against(wanted)
    if problem is None:
        return ()
    folder = temporary_folder() / "cupy"
    os.environ["CUPY_CACHE_DIR"] = str(folder)
    return (f"CuPy keeps compiled kernels in {folder}, not in {wanted}: {problem}",)


def import_cupy() -> Any:
    """CuPy; ResourceError where it is missing or cannot be imported."""
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            do = "install gpu_tomoclass[cuda12] or gpu_tomoclass[cuda13]"
            raise ResourceError("CuPy is not installed", do=do) from None
        raise ResourceError(f"CuPy cannot be imported: {reason_of(error)}", do="install CuPy again") from error
    # A broken installation raises whatever its libraries raise.
    except Exception as error:
        raise ResourceError(f"CuPy cannot be imported: {reason_of(error)}", do="install CuPy again") from error


def check_driver(cupy: Any) -> None:
    """Raise ResourceError where the driver is missing or too old for this CuPy."""
    runtime = cupy.cuda.runtime
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        raise ResourceError("there is no NVIDIA driver on this machine", do=OTHERWISE)
    if driver // 1000 < needed // 1000:  # within one major version, drivers serve newer runtimes
        raise ResourceError(
            f"the NVIDIA driver supports CUDA {_version(driver)}, CuPy {cupy.__version__} needs {needed // 1000}.0",
            do=f"install CuPy for CUDA {driver // 1000}, or a newer driver",
        )


def check_gpu(cupy: Any, gpu_id: int) -> None:
    """Raise ResourceError where no GPU is visible, UsageError where none has this number."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ResourceError(f"no GPU can be used{hint}: {reason_of(error)}", do=OTHERWISE) from error
    if count == 0:
        raise ResourceError(f"no GPU is visible{hint}", do=OTHERWISE)
    if not 0 <= gpu_id < count:
        raise UsageError(f"there is no GPU {gpu_id}; {count} visible{hint}", do=f"give --gpu-id 0 to {count - 1}")


def _version(number: int) -> str:
    """12040 -> 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def reason_of(error: BaseException) -> str:
    """Kind and first line of an error, and what a missing compiler library means."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if "nvrtc" in str(error).lower():
        text += " (NVRTC, CUDA's run-time compiler, is missing or does not fit: install cupy with the [ctk] extra)"
    return text
