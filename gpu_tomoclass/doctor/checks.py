"""Comparison of a device's kernels with the reference, within the tolerances that the tests use, and their speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, largest_difference
from gpu_tomoclass.doctor.machine_report import Check
from gpu_tomoclass.doctor.subjects import Subjects, random_planes, speed
from gpu_tomoclass.doctor.trials import Trial

TIMED = (400, 400)
TIMED_SLAB = 8  # planes at once where a device has its own memory; one elsewhere
REPEATS = 3


def check_device(device: Device, subjects: Subjects, advance: Callable[[], None] = lambda: None) -> list[Check]:
    """Compare and time every family that has a kernel, and the forest, on a device that runs kernels."""
    n_planes = TIMED_SLAB if device.has_own_memory else 1
    timed = random_planes(np.random.default_rng(8), (n_planes, *TIMED))
    checks = []
    for name, trial in subjects.trials.items():
        try:
            checks.append(_check(device, name, trial, subjects.expected[name], timed))
        # CuPy, NVRTC, compilers and drivers raise kinds of their own; whichever it is, this kernel is of no use here.
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            checks.append(Check(name, False, trial.tolerance.factor, problem=f"{type(error).__name__}: {text}"))
        advance()
    return checks


def _check(
    device: Device, name: str, trial: Trial, expected: npt.NDArray[Any], timed: npt.NDArray[np.float32]
) -> Check:
    began = time.perf_counter()
    run, given = trial.begin(device), trial.given(device)
    result = run(given)
    found = device.numpy(result)
    first = time.perf_counter() - began
    difference = largest_difference(found, expected, relative=trial.relative)
    if trial.contradicts_itself(device, result):
        difference = math.inf
    given = trial.given(device, timed)
    of_plane = speed(_fastest(device, lambda: run(given)), trial.n_pixels(given))
    allowed = trial.tolerance.factor
    return Check(name, difference <= allowed, allowed, difference, of_plane, first)


def _fastest(device: Device, run: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs after a first one, which may compile or allocate."""
    seconds = []
    for _ in range(1 + REPEATS):
        device.synchronize()
        began = time.perf_counter()
        run()
        device.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
