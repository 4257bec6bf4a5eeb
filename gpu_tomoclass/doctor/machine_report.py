"""Report of the doctor: devices, checks, packages."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from gpu_tomoclass.errors import TomoclassError


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


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """An infinite number is no JSON."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
