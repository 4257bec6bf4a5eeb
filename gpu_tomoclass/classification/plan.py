"""What a classification will need, before it is queued: memory, disk and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.classification.backoff import SlabClassifier
from gpu_tomoclass.classification.on_device import MAX_SLAB, MEMORY_SHARE, Classifier
from gpu_tomoclass.classification.pipeline import AHEAD, Pipeline
from gpu_tomoclass.classification.slab import Wanted
from gpu_tomoclass.device import Device, DryDevice, available_bytes, resident_bytes
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import prepare_plane
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.outputs import free_bytes, size_text
from gpu_tomoclass.volumes import Volume

PROCESS_BYTES = 130 * 2**20  # the interpreter and its libraries, where the system does not tell; measured
WORK_BYTES = 45 * 2**20  # compiled kernels, the writer and its compressor, what the allocator keeps; measured
PINNED = 2  # CuPy takes page-locked memory by powers of two, at most so many times what is asked for
COMPRESSED_PIXELS = 4 / 3  # a pyramid of halved levels adds at most a third


@dataclass(frozen=True)
class ThreadMemory:
    """What the computing threads allocate, in bytes.

    Attributes
    ----------
    shared : int
        On the device, once for all threads: the forest.
    fixed, per_plane : int
        On the device, for each thread, and that for each plane at once.
    host_per_plane : int
        Beside a GPU's memory, for each thread and plane at once: its pinned memory and what is made of it.
    """

    shared: int
    fixed: int
    per_plane: int
    host_per_plane: int = 0

    def bytes(self, n_planes: int, *, n_threads: int = 1) -> int:
        """On the device."""
        return self.shared + n_threads * (self.fixed + n_planes * self.per_plane)


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes
    ----------
    device : str
    n_threads, slab_planes : int
    n_planes : int
    host_bytes : int
        Largest resident size of the process.
    device_bytes : int or None
        On a GPU.
    disk_bytes : int
        At most, while the run goes on: unfinished and finished outputs, not compressed.
    seconds_per_plane : float or None
        Of wall time, measured on some planes of the volume; None if nothing was measured.
    warnings : sequence of str
        What will not fit as things are now.
    """

    device: str
    n_threads: int
    slab_planes: int
    n_planes: int
    host_bytes: int
    device_bytes: int | None
    disk_bytes: int
    seconds_per_plane: float | None = None
    warnings: Sequence[str] = field(default_factory=tuple)

    @property
    def seconds(self) -> float | None:
        return None if self.seconds_per_plane is None else self.seconds_per_plane * self.n_planes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "warnings": list(self.warnings), "seconds": self.seconds}


def thread_memory(model: Model, device_name: str, shape: tuple[int, int], *, wanted: Wanted) -> ThreadMemory:
    """What threads allocate for planes (ny, nx), from a dry run of the real code."""
    n_classes = len(model.classes)
    n_pixels = shape[0] * shape[1]
    want_probabilities = bool(wanted.probabilities or wanted.uncertainty)
    # Beside the arrays of the device: labels and their copy, and what is made of the probabilities.
    host = n_pixels * (2 + (8 * n_classes if want_probabilities else 0))
    if device_name == "numpy":
        return ThreadMemory(0, 0, n_pixels * (model.bank.bytes_per_pixel + 8 * n_classes) + host)
    shared, allocated, pinned = 0, [], []
    for n_planes in (1, 2):
        device = DryDevice(device_name)
        classifier = Classifier(model, device)
        classifier.prepare()
        shared = device.n_bytes
        planes = np.empty((n_planes, *shape), np.float32)
        classifier.classify(planes, want_probabilities=want_probabilities)
        allocated.append(device.n_bytes - shared)
        pinned.append(device.n_pinned)
    per_plane = allocated[1] - allocated[0]
    fixed = allocated[0] - per_plane
    if device_name == "native":
        return ThreadMemory(shared, fixed, per_plane + host)
    return ThreadMemory(shared, fixed, per_plane, host + PINNED * pinned[0])


def in_flight_bytes(volume: Volume, *, n_threads: int, slab_planes: int, n_classes: int, wanted: Wanted) -> int:
    """Host memory of what is read, waits, is computed and is written at the same time."""
    n_pixels = volume.shape[1] * volume.shape[2] * slab_planes
    given = n_pixels * (4 + volume.dtype.itemsize)
    made = n_pixels * _product_bytes(n_classes, wanted)
    return given * (AHEAD + 1 + n_threads) + made * (AHEAD + 1 + n_threads)


def _product_bytes(n_classes: int, wanted: Wanted) -> int:
    """Per voxel of all outputs."""
    of_probability = {None: 0, "float32": 4, "uint8": 1}[wanted.probabilities]
    return 1 + of_probability * n_classes + (4 if wanted.uncertainty else 0)


def make_plan(
    volume: Volume,
    model: Model,
    device: Device,
    *,
    wanted: Wanted | None = None,
    output: str | PathLike[str] | None = None,
    n_planes: int | None = None,
    slab_planes: int | None = None,
    force: bool = False,
    measure: bool = True,
) -> Plan:
    """Predict what :func:`gpu_tomoclass.classification.classify_volume.classify` will need.

    Memory comes from a dry run of the same code that allocates it; time from classifying a few planes for real.

    Parameters
    ----------
    volume : Volume
    model : Model
    device : Device
    wanted : Wanted, optional
    output : path, optional
        Where the outputs will be: its disk is looked at, and TIFF and MRC need their size twice.
    n_planes : int, optional
        Default all of the volume.
    slab_planes : int, optional
        As the user will fix it.
    force : bool
        Although the voxel size differs from that of the training.
    measure : bool
        Classify some planes to know the time.

    Raises
    ------
    ModelError
        If the model does not fit the volume.
    """
    fits_volume(model, volume, force=force)
    wanted = wanted or Wanted()
    n_planes = volume.shape[0] if n_planes is None else n_planes
    plane_device, n_threads = device.side_by_side() if n_planes > 1 else (device, 1)
    n_threads = min(n_threads, n_planes)
    memory = thread_memory(model, device.name, volume.shape[1:], wanted=wanted)
    slab = slab_planes or 1
    free_on_device = device.free_memory() if device.has_own_memory else None
    if slab_planes is None and free_on_device is not None:
        room = (MEMORY_SHARE * free_on_device - memory.shared) / n_threads - memory.fixed
        slab = max(1, min(MAX_SLAB, n_planes, int(room // memory.per_plane)))
    if free_on_device is not None and memory.bytes(slab, n_threads=n_threads) > free_on_device:
        n_threads = 1  # as the run will find out
    on_device = memory.bytes(slab, n_threads=n_threads)
    process = (resident_bytes() or PROCESS_BYTES) + WORK_BYTES
    flight = in_flight_bytes(volume, n_threads=n_threads, slab_planes=slab, n_classes=len(model.classes), wanted=wanted)
    host = process + flight + (n_threads * slab * memory.host_per_plane if device.has_own_memory else on_device)
    disk = _disk_bytes(volume, n_planes=n_planes, n_classes=len(model.classes), wanted=wanted, output=output)
    return Plan(
        device=device.name,
        n_threads=n_threads,
        slab_planes=slab,
        n_planes=n_planes,
        host_bytes=host,
        device_bytes=on_device if device.has_own_memory else None,
        disk_bytes=disk,
        seconds_per_plane=_measured(volume, model, plane_device, wanted, n_threads=n_threads, slab=slab)
        if measure
        else None,
        warnings=_warnings(host, disk, on_device, free_on_device, output=output),
    )


def threads_within(limit: int, volume: Volume, model: Model, device: Device, *, wanted: Wanted) -> int:
    """How many threads of a CPU device keep the process within ``limit`` bytes.

    Raises
    ------
    ResourceError
        If not even one does.
    """
    memory = thread_memory(model, device.name, volume.shape[1:], wanted=wanted)
    n_classes, process = len(model.classes), (resident_bytes() or PROCESS_BYTES) + WORK_BYTES
    _, most = device.side_by_side()

    def needed(n_threads: int) -> int:
        flight = in_flight_bytes(volume, n_threads=n_threads, slab_planes=1, n_classes=n_classes, wanted=wanted)
        return process + flight + memory.bytes(1, n_threads=n_threads)

    fitting = [n for n in range(1, most + 1) if needed(n) <= limit]
    if not fitting:
        raise ResourceError(
            f"one thread needs {size_text(needed(1))} of memory, the limit is {size_text(limit)}",
            do="raise --memory-limit, or train with fewer features",
        )
    return fitting[-1]


def _disk_bytes(
    volume: Volume, *, n_planes: int, n_classes: int, wanted: Wanted, output: str | PathLike[str] | None
) -> int:
    voxels = n_planes * volume.shape[1] * volume.shape[2]
    is_zarr = output is None or fspath(output).rstrip("/\\").lower().endswith(".zarr")
    return int(voxels * _product_bytes(n_classes, wanted) * (COMPRESSED_PIXELS if is_zarr else 2))


def _warnings(
    host: int, disk: int, on_device: int, free_on_device: int | None, *, output: str | PathLike[str] | None
) -> tuple[str, ...]:
    found = []
    available = available_bytes()
    more = None if available is None else host - (resident_bytes() or 0)
    if available is not None and more is not None and more > available:
        found.append(
            f"{size_text(more)} more memory is needed, {size_text(available)} are free now: use fewer --workers"
        )
    if free_on_device is not None and on_device > free_on_device:
        found.append(f"{size_text(on_device)} of GPU memory are needed, {size_text(free_on_device)} are free now")
    free = free_bytes(output) if output is not None else None
    if free is not None and disk > free:
        found.append(
            f"up to {size_text(disk)} are needed on the disk of {fspath(output or '')}, {size_text(free)} free"
        )
    return tuple(found)


def _measured(volume: Volume, model: Model, device: Device, wanted: Wanted, *, n_threads: int, slab: int) -> float:
    """Wall seconds per plane: some slabs through the pipeline, the first of each thread not counted (it allocates)."""
    classifier = SlabClassifier(model, device, wanted=wanted, n_threads=n_threads)
    z = volume.shape[0] // 2
    plane = prepare_plane(volume, z, scale=model.intensity, nan="fill")
    classifier.classify(0, [plane], {})  # compiles
    n_counted = 2 * n_threads
    finished: list[float] = []
    Pipeline(
        lambda: ([plane] * slab for _ in range(n_threads + n_counted)),
        lambda planes: classifier.classify(0, planes, {}),
        lambda slabs: finished.append(time.perf_counter()),
        workers=n_threads,
    ).run()
    return (finished[-1] - finished[n_threads - 1]) / (n_counted * slab)
