from .base import Array, BoundKernel, Device, HostDevice, NumpyDevice, Stopwatch, is_out_of_memory
from .choice import DEVICES, choose_device
from .compiler import LibraryCache, find_compiler, when_compiling
from .cores import usable_cores, worker_count
from .cupy_package import cupys_own_allocator, free_cupys_pool, gpu_of, visible_gpus
from .dry import DryDevice
from .launch_record import LaunchRecord
from .memory import available_bytes, peak_bytes, resident_bytes
from .probe import probe_device
from .sources import kernels_folder
from .tolerances import FOREST, NAD, NAD_VOLUME, Tolerance, largest_difference
from .trust import is_ours, stranger, temporary_folder
from .workspace import Planes, Workspace

__all__ = [
    "DEVICES",
    "FOREST",
    "NAD",
    "NAD_VOLUME",
    "Array",
    "BoundKernel",
    "Device",
    "DryDevice",
    "HostDevice",
    "LaunchRecord",
    "LibraryCache",
    "NumpyDevice",
    "Planes",
    "Stopwatch",
    "Tolerance",
    "Workspace",
    "available_bytes",
    "choose_device",
    "cupys_own_allocator",
    "find_compiler",
    "free_cupys_pool",
    "gpu_of",
    "is_ours",
    "is_out_of_memory",
    "kernels_folder",
    "largest_difference",
    "peak_bytes",
    "probe_device",
    "resident_bytes",
    "stranger",
    "temporary_folder",
    "usable_cores",
    "visible_gpus",
    "when_compiling",
    "worker_count",
]
