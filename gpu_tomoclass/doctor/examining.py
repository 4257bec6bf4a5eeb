"""Trial of the devices of this machine, whether they work and compute what they should: ``gpu-tomoclass doctor``.

Every kernel is compiled and run on random planes. A device that does not work, a package that cannot be imported or a
kernel that fails is a line in the report.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from typing import Any

from gpu_tomoclass import __version__
from gpu_tomoclass.device import DEVICES, Device, available_bytes, choose_device, usable_cores
from gpu_tomoclass.doctor.checks import check_device
from gpu_tomoclass.doctor.machine_report import Check, DeviceReport, MachineReport
from gpu_tomoclass.doctor.packages import PACKAGES, find_package
from gpu_tomoclass.doctor.subjects import Subjects
from gpu_tomoclass.errors import TomoclassError, UsageError
from gpu_tomoclass.forest import describe_walks
from gpu_tomoclass.types import Progress


def examine(
    device: str = "auto", *, gpu_id: int = 0, threads: int | None = None, progress: Progress | None = None
) -> MachineReport:
    """Try the devices and compare their kernels with the reference.

    Parameters
    ----------
    device : {"auto", "cuda", "native", "numpy"}
        Compare this one; ``auto``: all that work.
    gpu_id : int
    threads : int, optional
        Of the CPU; default one per usable core.
    progress : callable, optional

    Returns
    -------
    MachineReport
        Its ``error`` is a ResourceError (exit code 5) if the device asked for does not work, a TomoclassError (exit
        code 1) if kernels differ from the reference or cannot be run.
    """
    opened: dict[str, Device | TomoclassError] = {}
    for name in DEVICES:
        try:
            opened[name] = choose_device(name, gpu_id, threads=threads)
        except TomoclassError as error:
            opened[name] = error
    compared = [
        found
        for name, found in opened.items()
        if isinstance(found, Device) and found.runs_kernels and device in ("auto", name)
    ]
    subjects = Subjects()
    n_steps = len(subjects.trials) * (1 + len(compared))
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, n_steps)

    subjects.compute_reference(advance)
    checks = {found.name: check_device(found, subjects, advance) for found in compared}
    reports = tuple(_device_report(name, found, checks.get(name, ())) for name, found in opened.items())
    return MachineReport(
        machine=machine(),
        devices=reports,
        reference=subjects.reference_speed,
        packages=tuple(find_package(name) for name in PACKAGES),
        asked=device,
        error=_verdict(device, opened.get(device), reports),
    )


def warm(
    device: str = "auto", *, gpu_id: int = 0, threads: int | None = None, progress: Progress | None = None
) -> tuple[Device, dict[str, float], dict[str, str]]:
    """Compile every kernel for this kind of machine, so that later runs of the same user find them in the cache.

    Nothing is compared: half a minute on a GPU node, where :func:`examine` takes the time of the reference too.

    Parameters
    ----------
    device, gpu_id, threads
        As for :func:`~gpu_tomoclass.device.choice.choose_device`.
    progress : callable, optional

    Returns
    -------
    device : Device
        Its ``notes`` say where kernels are kept if not where they should be.
    seconds : dict of str to float
        Of each family and the forest, compiling and one run.
    problems : dict of str to str
        Of those that could not be run.

    Raises
    ------
    ResourceError
        If the device does not work here.
    UsageError
        If it compiles nothing.
    """
    chosen = choose_device(device, gpu_id, threads=threads)
    if not chosen.runs_kernels:
        raise UsageError(f"the {chosen.name} device compiles nothing", do="choose --device cuda or native")
    subjects, seconds, problems = Subjects(), dict[str, float](), dict[str, str]()
    for done, (name, trial) in enumerate(subjects.trials.items()):
        if progress is not None:
            progress(done, len(subjects.trials))
        began = time.perf_counter()
        try:
            trial.begin(chosen)(trial.given(chosen))
            chosen.synchronize()
        # As in check_device: whichever it is, this kernel is of no use here.
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        seconds[name] = time.perf_counter() - began
    if progress is not None:
        progress(len(subjects.trials), len(subjects.trials))
    return chosen, seconds, problems


def _device_report(name: str, found: Device | TomoclassError, checks: Sequence[Check]) -> DeviceReport:
    if isinstance(found, TomoclassError):
        return DeviceReport(name, False, str(found))
    walks = ""
    if any(check.name == "forest" and check.agrees for check in checks) and not found.wants_gpu_plan:
        walks = describe_walks(found)
    return DeviceReport(name, True, found.description, found.notes, found.free_memory(), tuple(checks), walks)


def _verdict(
    asked: str, found: Device | TomoclassError | None, reports: Sequence[DeviceReport]
) -> TomoclassError | None:
    if isinstance(found, TomoclassError):
        return found
    wrong = [
        f"{report.name}: {', '.join(check.name for check in report.checks if not check.agrees)}"
        for report in reports
        if any(not check.agrees for check in report.checks)
    ]
    if not wrong:
        return None
    return TomoclassError(
        f"kernels differ from the reference or cannot be run ({'; '.join(wrong)})",
        do="choose another --device, and report this with the output of doctor --json",
    )


def machine() -> dict[str, Any]:
    """Versions, cores and free memory of the host."""
    return {
        "gpu_tomoclass": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": usable_cores(),
        "free_bytes": available_bytes(),
    }
