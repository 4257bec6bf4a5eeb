"""Comparison of a device's kernels with the reference, within the tolerances that the tests use, and their speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import FOREST, NAD, NAD_VOLUME, Device, Tolerance, largest_difference
from gpu_tomoclass.doctor.machine_report import Check
from gpu_tomoclass.doctor.subjects import NAD_KINDS, Subjects, nad_parameters, random_planes, speed
from gpu_tomoclass.features import FAMILIES, ORIGINAL, FeatureEngine
from gpu_tomoclass.forest import DeviceForest, device_labels, predict_classes

TIMED = (400, 400)
TIMED_SLAB = 8  # planes at once where a device has its own memory; one elsewhere
REPEATS = 3


def check_device(device: Device, subjects: Subjects, advance: Callable[[], None] = lambda: None) -> list[Check]:
    """Compare and time every family that has a kernel, and the forest, on a device that runs kernels."""
    n_planes = TIMED_SLAB if device.has_own_memory else 1
    timed = random_planes(np.random.default_rng(8), (n_planes, *TIMED))
    checks = []
    for name in subjects.names:
        try:
            if name.startswith("forest"):
                checks.append(_check_forest(device, name, subjects))
            elif name in NAD_KINDS:
                checks.append(_check_nad(device, name, subjects, timed))
            else:
                checks.append(_check_family(device, name, subjects, timed))
        # CuPy, NVRTC, compilers and drivers raise kinds of their own; whichever it is, this kernel is of no use here.
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            tolerance = _tolerance(name).factor
            checks.append(Check(name, False, tolerance, problem=f"{type(error).__name__}: {text}"))
        advance()
    return checks


def _tolerance(name: str) -> Tolerance:
    others = {"forest": FOREST, "forest by values": FOREST, "nad": NAD, "nad volume": NAD_VOLUME}
    return others.get(name) or FAMILIES.get(name, ORIGINAL).tolerance


def _check_family(device: Device, name: str, subjects: Subjects, timed: npt.NDArray[np.float32]) -> Check:
    engine = FeatureEngine(device, subjects.blocks[name])
    began = time.perf_counter()
    result = device.numpy(engine.compute(subjects.planes))
    first = time.perf_counter() - began
    difference = largest_difference(result, subjects.expected[name])

    def run() -> None:
        engine.compute(timed)

    of_plane = speed(_fastest(device, run), timed.size)
    allowed = _tolerance(name).factor
    return Check(name, difference <= allowed, allowed, difference, of_plane, first)


def _check_nad(device: Device, name: str, subjects: Subjects, timed: npt.NDArray[np.float32]) -> Check:
    denoise = NAD_KINDS[name]
    began = time.perf_counter()
    result = denoise(subjects.planes, device=device, parameters=nad_parameters(name, subjects.planes.shape))
    first = time.perf_counter() - began
    difference = largest_difference(result, subjects.expected[name])
    parameters = nad_parameters(name, timed.shape)

    def run() -> None:
        denoise(timed, device=device, parameters=parameters)

    of_plane = speed(_fastest(device, run), timed.size)
    allowed = _tolerance(name).factor
    return Check(name, difference <= allowed, allowed, difference, of_plane, first)


def _check_forest(device: Device, name: str, subjects: Subjects) -> Check:
    n_pixels = subjects.values.shape[1]
    began = time.perf_counter()
    forest = DeviceForest(subjects.forests[name], device, by_rank=name == "forest")
    values = device.array(subjects.values)
    probabilities = forest.probabilities(values)
    labels = device.empty(n_pixels, np.uint8)
    device_labels(device, probabilities, values=device.array(subjects.class_values), out=labels)
    result = device.numpy(probabilities)
    first = time.perf_counter() - began
    difference = largest_difference(result, subjects.expected[name], relative=False)
    if not np.array_equal(device.numpy(labels), predict_classes(result, subjects.class_values)):
        difference = math.inf

    def run() -> None:
        forest.probabilities(values)

    of_plane = speed(_fastest(device, run), n_pixels)
    return Check(name, difference <= FOREST.factor, FOREST.factor, difference, of_plane, first)


def _fastest(device: Device, run: Callable[[], None]) -> float:
    """Seconds of the fastest of some runs after a first one, which may compile or allocate."""
    seconds = []
    for _ in range(1 + REPEATS):
        device.synchronize()
        began = time.perf_counter()
        run()
        device.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
