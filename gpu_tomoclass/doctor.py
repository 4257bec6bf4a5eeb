"""Checks of the devices of this machine, whether they work and compute what they should: ``gpu-tomoclass doctor``.

Every kernel is compiled and run on random planes, and compared with the reference within the tolerances that the tests
use. A device that does not work, a package that cannot be imported or a kernel that fails is a line in the report.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass import __version__
from gpu_tomoclass.baseline import NadParameters, nad_planes, nad_volume
from gpu_tomoclass.device import (
    DEVICES,
    FOREST,
    NAD,
    NAD_VOLUME,
    Device,
    NumpyDevice,
    Tolerance,
    available_bytes,
    choose_device,
    largest_difference,
    usable_cores,
)
from gpu_tomoclass.errors import TomoclassError, UsageError
from gpu_tomoclass.features import (
    FAMILIES,
    ORIGINAL,
    FeatureBank,
    FeatureBlock,
    FeatureEngine,
    accelerated_family,
)
from gpu_tomoclass.forest import (
    LEAF,
    DeviceForest,
    Forest,
    describe_walks,
    device_labels,
    predict_classes,
    predict_probabilities,
)
from gpu_tomoclass.types import Progress

COMPARED = (2, 131, 157)  # planes, rows, columns: primes, so that blocks of kernels are cut off
TIMED = (400, 400)
TIMED_SLAB = 8  # planes at once where a device has its own memory; one elsewhere
# Beside the usual sigmas one each that takes another way: a plane made smaller first, a disk too large to sort.
SIGMAS = {"gaussian_blur": (1, 2, 4, 8, 16, 24), "median": (1, 2, 4, 8, 16, 24)}
NEAR_ZERO = np.array([0, -0.0, 1e-45, 1e-39, -1e-39], np.float32)  # GPUs take all of them for 0
REPEATS = 3
IMPORT_SECONDS = 120  # after which an import counts as hanging
# What a package is imported as, and the distributions that bring it.
PACKAGES = {
    "NumPy": ("numpy", ("numpy",)),
    "SciPy": ("scipy", ("scipy",)),
    "scikit-learn": ("sklearn", ("scikit-learn",)),
    "CuPy": ("cupy", ("cupy-cuda12x", "cupy-cuda13x", "cupy")),
    "cuML": ("cuml", ("cuml-cu12", "cuml-cu13", "cuml")),
    "nvForest": ("nvforest", ("nvforest-cu12", "nvforest-cu13", "nvforest")),
    "cuCIM": ("cucim", ("cucim-cu12", "cucim-cu13", "cucim")),
    "dask-cuda": ("dask_cuda", ("dask-cuda",)),
}


@dataclass(frozen=True)
class Check:
    """One family (or the forest) on one device.

    Attributes
    ----------
    name : str
    agrees : bool
    difference : float or None
        From the reference, at most: as a share of the channel's largest absolute value (of 1 for probabilities).
    tolerance : float
        What is allowed; 0 asks for equal values.
    ms_per_megapixel : float or None
        Fastest of some runs from host memory to the device's memory.
    first_seconds : float or None
        The first run, which compiles.
    problem : str
        Why it could not be run; empty if it could.
    """

    name: str
    agrees: bool
    tolerance: float
    difference: float | None = None
    ms_per_megapixel: float | None = None
    first_seconds: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class DeviceReport:
    """One device.

    Attributes
    ----------
    name : str
    works : bool
    description : str
        What it is; or a sentence that says why it does not work and what to do.
    notes : tuple of str
    free_bytes : int or None
        Of the device's own memory.
    checks : tuple of Check
        Empty if the device does not work, was not asked for, or is the reference itself.
    forest_walks : str
        How a CPU goes down the trees of a forest, and what it measured.
    """

    name: str
    works: bool
    description: str
    notes: tuple[str, ...] = ()
    free_bytes: int | None = None
    checks: tuple[Check, ...] = ()
    forest_walks: str = ""


@dataclass(frozen=True)
class Package:
    """An installed package, or one that is not (version None); ``problem`` says why it is of no use."""

    name: str
    version: str | None
    problem: str = ""


@dataclass(frozen=True)
class MachineReport:
    """All that was found.

    Attributes
    ----------
    machine : dict
        Versions, cores, free memory.
    devices : tuple of DeviceReport
    reference : dict of str to float
        Milliseconds per million pixels of each family by the reference.
    packages : tuple of Package
    asked : str
        The device asked for, or ``"auto"``.
    error : TomoclassError or None
        What the command fails with.
    """

    machine: dict[str, Any]
    devices: tuple[DeviceReport, ...]
    reference: dict[str, float]
    packages: tuple[Package, ...]
    asked: str
    error: TomoclassError | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: no NaN, no infinity."""
        return {
            "machine": self.machine,
            "asked": self.asked,
            "devices": [{**asdict(d), "checks": [_finite(asdict(c)) for c in d.checks]} for d in self.devices],
            "reference_ms_per_megapixel": self.reference,
            "packages": [asdict(package) for package in self.packages],
            "error": None if self.error is None else str(self.error),
            "exit_code": 0 if self.error is None else self.error.exit_code,
        }


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
    n_steps = len(subjects.names) * (1 + len(compared))
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
    for done, name in enumerate(subjects.names):
        if progress is not None:
            progress(done, len(subjects.names))
        began = time.perf_counter()
        try:
            if name.startswith("forest"):
                forest = DeviceForest(subjects.forests[name], chosen, by_rank=name == "forest")
                forest.probabilities(chosen.array(subjects.values))
            elif name in NAD_KINDS:
                parameters = nad_parameters(name, subjects.planes.shape)
                NAD_KINDS[name](subjects.planes, device=chosen, parameters=parameters)
            else:
                FeatureEngine(chosen, subjects.blocks[name]).compute(subjects.planes)
            chosen.synchronize()
        # As in check_device: whichever it is, this kernel is of no use here.
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        seconds[name] = time.perf_counter() - began
    if progress is not None:
        progress(len(subjects.names), len(subjects.names))
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


NAD_KINDS = {"nad": nad_planes, "nad volume": nad_volume}
OTHERS = ("forest", "forest by values", *NAD_KINDS)
"""What has kernels besides the families; large forests compare values, others the ranks of values."""


# -- what is compared ----------------------------------------------------------------------------------------------
class Subjects:
    """The inputs of all checks, and what the reference makes of them.

    Attributes
    ----------
    names : tuple of str
        Families that have a kernel, and :data:`OTHERS`.
    reference_speed : dict of str to float
        Milliseconds per million pixels.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.planes = random_planes(random, COMPARED)
        self.blocks: dict[str, list[FeatureBlock]] = {}
        for block in FeatureBank.create(list(FAMILIES), sigmas=SIGMAS).blocks:
            self.blocks.setdefault(block.family, []).append(block)
        families = (ORIGINAL.name, *FAMILIES)
        self.families = tuple(name for name in families if accelerated_family(name) is not None)
        self.names = (*self.families, *OTHERS)
        self.forests = {"forest": random_forest(random, pure=True), "forest by values": random_forest(random)}
        n_classes, n_features = (getattr(self.forests["forest"], name) for name in ("n_classes", "n_features"))
        self.class_values = np.arange(1, n_classes + 1, dtype=np.uint8)
        n_pixels = self.planes[0].size
        self.values = random.normal(size=(n_features, n_pixels)).astype(np.float32)
        near = random.random(self.values.shape) < 0.01
        self.values[near] = random.choice(NEAR_ZERO, size=int(near.sum()))
        self.values[random.random(self.values.shape) < 0.001] = np.nan  # missing: the slow way through the trees
        self.expected: dict[str, npt.NDArray[Any]] = {}
        self.reference_speed: dict[str, float] = {}

    def compute_reference(self, advance: Callable[[], None]) -> None:
        """Fill ``expected`` and ``reference_speed``."""
        numpy_device = NumpyDevice()
        for name in self.names:
            began = time.perf_counter()
            if name.startswith("forest"):
                self.expected[name] = predict_probabilities(self.forests[name], self.values)
                n_pixels = self.values.shape[1]
            elif name in NAD_KINDS:
                denoise, parameters = NAD_KINDS[name], nad_parameters(name, self.planes.shape)
                self.expected[name] = denoise(self.planes, device=numpy_device, parameters=parameters)
                n_pixels = self.planes.size
            else:
                self.expected[name] = FeatureEngine(numpy_device, self.blocks[name]).compute(self.planes)
                n_pixels = self.planes.size
            self.reference_speed[name] = _speed(time.perf_counter() - began, n_pixels)
            advance()


def nad_parameters(name: str, shape: tuple[int, ...]) -> NadParameters:
    """A few steps of NAD of planes or of a volume; noise is in the middle."""
    dimensions = 3 if name == "nad volume" else 2
    return NadParameters(
        dimensions=dimensions, iterations=5, noise_area=tuple(n // 2 for n in shape[::-1])[:dimensions]
    )


def random_planes(random: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """(nz, ny, nx) float32, whole numbers 0..65535: streaks along x with noise, and some flat spots."""
    streaks = np.cumsum(random.normal(size=shape), axis=2) * 300 + 20000
    image = np.clip(np.round(streaks + random.normal(size=shape) * 800), 0, 65535)
    image[:, : shape[1] // 8, : shape[2] // 8] = 12345
    return image.astype(np.float32)


def random_forest(
    random: np.random.Generator,
    *,
    n_trees: int = 40,
    depth: int = 9,
    n_features: int = 40,
    n_classes: int = 4,
    pure: bool = False,
) -> Forest:
    """Complete trees with random questions, some of them about zero, and votes, of one class per leaf or of all."""
    n_inner, n_leaves = 2**depth - 1, 2**depth
    n_nodes = n_inner + n_leaves
    node, tree = np.arange(n_nodes), np.arange(n_trees)[:, np.newaxis]
    is_leaf = np.broadcast_to(node >= n_inner, (n_trees, n_nodes))
    child = np.where(is_leaf, tree * n_leaves + node - n_inner, tree * n_nodes + 2 * node + 1)
    threshold = random.normal(size=is_leaf.shape)
    threshold[:, ::16] = random.choice(NEAR_ZERO, size=threshold[:, ::16].shape)
    if pure:
        votes = np.eye(n_classes)[random.integers(n_classes, size=n_trees * n_leaves)]
    else:
        votes = random.random((n_trees * n_leaves, n_classes)) + 0.01
    return Forest(
        feature=np.where(is_leaf, LEAF, random.integers(n_features, size=is_leaf.shape)).astype(np.int32).ravel(),
        threshold=np.where(is_leaf, 0, threshold).astype(np.float32).ravel(),
        child=child.astype(np.int32).ravel(),
        left_fraction=np.where(is_leaf, 0, random.random(is_leaf.shape)).astype(np.float32).ravel(),
        votes=votes,
        roots=tree.ravel() * n_nodes,
        n_features=n_features,
    )


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

    speed = _speed(_fastest(device, run), timed.size)
    allowed = _tolerance(name).factor
    return Check(name, difference <= allowed, allowed, difference, speed, first)


def _check_nad(device: Device, name: str, subjects: Subjects, timed: npt.NDArray[np.float32]) -> Check:
    denoise = NAD_KINDS[name]
    began = time.perf_counter()
    result = denoise(subjects.planes, device=device, parameters=nad_parameters(name, subjects.planes.shape))
    first = time.perf_counter() - began
    difference = largest_difference(result, subjects.expected[name])
    parameters = nad_parameters(name, timed.shape)

    def run() -> None:
        denoise(timed, device=device, parameters=parameters)

    speed = _speed(_fastest(device, run), timed.size)
    allowed = _tolerance(name).factor
    return Check(name, difference <= allowed, allowed, difference, speed, first)


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

    speed = _speed(_fastest(device, run), n_pixels)
    return Check(name, difference <= FOREST.factor, FOREST.factor, difference, speed, first)


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


def _speed(seconds: float, n_pixels: int) -> float:
    """Milliseconds per million pixels."""
    return 1e9 * seconds / n_pixels


# -- the machine ---------------------------------------------------------------------------------------------------
def machine() -> dict[str, Any]:
    """Versions, cores and free memory of the host."""
    return {
        "gpu_tomoclass": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": usable_cores(),
        "free_bytes": available_bytes(),
    }


def find_package(name: str) -> Package:
    """Version of a package of :data:`PACKAGES`; whether it can be imported is tried in a process of its own."""
    module, distributions = PACKAGES[name]
    found = {d: version for d in distributions if (version := _version(d)) is not None}
    if not found:
        return Package(name, None)
    version = next(iter(found.values()))
    if len(found) > 1:
        return Package(name, version, f"{' and '.join(found)} are installed and disturb each other: keep one")
    floor = _floor(next(iter(found)))
    if floor is not None and _numbers(version) < _numbers(floor):
        return Package(name, version, f"{floor} or newer is needed")
    return Package(name, version, import_problem(module))


def import_problem(module: str) -> str:
    """Why a module cannot be imported; empty if it can. A library that crashes does not take this process along."""
    command = [sys.executable, "-W", "ignore", "-c", f"import {module}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, env=os.environ)
    except subprocess.TimeoutExpired:
        return f"its import takes more than {IMPORT_SECONDS} seconds"
    if run.returncode == 0:
        return ""
    lines = run.stderr.strip().splitlines()
    reason = lines[-1][:300] if lines else f"the process ended with {run.returncode}"
    return f"cannot be imported: {reason}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _floor(distribution: str) -> str | None:
    """The oldest version of a distribution that our own package asks for."""
    try:
        requirements = importlib.metadata.requires("gpu_tomoclass") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return None
    for requirement in requirements:
        match = re.match(rf"{re.escape(distribution)}(\[[^]]*\])?\s*[^;]*?>=\s*([\d.]+)", requirement)
        if match:
            return match[2]
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """``26.10.00a42`` is (26, 10, 0)."""
    numbers = []
    for part in version.split("."):
        match = re.match(r"\d+", part)
        if match is None:
            break
        numbers.append(int(match[0]))
    return tuple(numbers)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """An infinite number is no JSON."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
