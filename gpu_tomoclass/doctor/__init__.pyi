from .checks import TIMED, TIMED_SLAB, check_device
from .examining import examine, warm
from .machine_report import Check, DeviceReport, MachineReport, Package
from .packages import find_package
from .subjects import Subjects, random_forest, random_planes

__all__ = [
    "TIMED",
    "TIMED_SLAB",
    "Check",
    "DeviceReport",
    "MachineReport",
    "Package",
    "Subjects",
    "check_device",
    "examine",
    "find_package",
    "random_forest",
    "random_planes",
    "warm",
]
