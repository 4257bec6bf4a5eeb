"""Libraries that make it faster, whether they are installed, new enough and can be imported."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys

from gpu_tomoclass.doctor.machine_report import Package

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
