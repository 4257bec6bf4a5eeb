"""Predict what a classification will need before it is queued: memory, disk and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.classification.backoff import SlabClassifier
from gpu_tomoclass.classification.on_device import (
    MAX_SLAB,
    MEMORY_SHARE,
    Classifier,
    side_by_side,
    slab_on_cpu,
    used_blocks,
)
from gpu_tomoclass.classification.pipeline import AHEAD, Pipeline
from gpu_tomoclass.classification.slab import Wanted, check_products, products_of
from gpu_tomoclass.classification.smoothing import planes_around, sigma_in_voxels
from gpu_tomoclass.device import Device, DryDevice, available_bytes, choose_device, resident_bytes
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import CUBES, Aspect, Place, PreparedSlab, aspect_of, halo, prepare_slab
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.outputs import free_bytes, size_text
from gpu_tomoclass.volumes import Volume, VolumeLike, open_volume

PROCESS_BYTES = 130 * 2**20  # the interpreter and its libraries, where the system does not tell; measured
WORK_BYTES = 45 * 2**20  # compiled kernels, the writer and its compressor, what the allocator keeps; measured
PINNED = 2  # CuPy takes page-locked memory by powers of two, at most so many times what is asked for
COMPRESSED_PIXELS = 4 / 3  # a pyramid of halved levels adds at most a third


@dataclass(frozen=True)
class ThreadMemory:
    """Bytes that the computing threads allocate.

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
    """Needs of a run.

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


def thread_memory(
    model: Model,
    device_name: str,
    shape: tuple[int, int],
    *,
    wanted: Wanted,
    depth: int | None = None,
    aspect: Aspect = CUBES,
) -> ThreadMemory:
    """Memory that threads take for planes (ny, nx) of a volume of ``depth`` planes, from a dry run of the real code."""
    reach = halo(used_blocks(model), aspect)
    depth = 2 * reach + 2 if depth is None else depth
    n_classes = len(model.classes)
    n_pixels = shape[0] * shape[1]
    want_probabilities = wanted.needs_probabilities
    # Beside the arrays of the device: labels and their copy, and what is made of the probabilities.
    host = n_pixels * (2 + (8 * n_classes if want_probabilities else 0))
    if device_name == "numpy":
        per_plane = n_pixels * model.bank.bytes_per_pixel
        of_halo = per_plane - 4 * n_pixels * model.bank.n_channels
        return ThreadMemory(0, min(2 * reach, depth) * of_halo, per_plane + 8 * n_pixels * n_classes + host)
    shared, allocated, pinned = 0, [], []
    for n_planes in (1, 2):
        device = DryDevice(device_name)
        classifier = Classifier(model, device)
        classifier.prepare()
        shared = device.n_bytes
        start = max(0, min(reach, (depth - n_planes) // 2))
        deep = max(depth, n_planes)
        place = Place.with_halo(start, start + n_planes, depth=deep, halo=reach, aspect=aspect)
        planes = np.empty((place.n_planes, *shape), np.float32)
        classifier.classify(planes, place=place, want_probabilities=want_probabilities)
        allocated.append(device.n_bytes - shared)
        pinned.append(device.n_pinned)
    per_plane = allocated[1] - allocated[0]
    fixed = allocated[0] - per_plane
    if device_name == "native":
        return ThreadMemory(shared, fixed, per_plane + host)
    return ThreadMemory(shared, fixed, per_plane, host + PINNED * pinned[0])


def in_flight_bytes(
    volume: Volume, *, n_threads: int, slab_planes: int, n_classes: int, wanted: Wanted, reach: int = 0
) -> int:
    """Host memory of what is read, waits, is computed and is written at the same time; slabs share their halos of
    ``reach`` planes."""
    n_pixels = volume.shape[1] * volume.shape[2] * slab_planes
    given = n_pixels * (4 + volume.dtype.itemsize)
    made = n_pixels * _product_bytes(n_classes, wanted)
    halos = 4 * volume.shape[1] * volume.shape[2] * min(2 * reach, volume.shape[0])
    around = 2 * smoothing_reach(wanted, volume)  # probabilities that are kept, and a slab's while they are added
    kept = 4 * n_classes * volume.shape[1] * volume.shape[2] * (around + 4 * n_threads * slab_planes)
    return (given + made) * (AHEAD + 1 + n_threads) + halos + (kept if wanted.smooth else 0)


def smoothing_reach(wanted: Wanted, volume: Volume) -> int:
    """Planes on each side whose probabilities a plane's depend on."""
    return 0 if wanted.smooth is None else planes_around(sigma_in_voxels(wanted.smooth, volume.voxel_size)[0])


def _product_bytes(n_classes: int, wanted: Wanted) -> int:
    """Per voxel of all outputs."""
    of_probability = {None: 0, "float32": 4, "uint8": 1}[wanted.probabilities]
    return 1 + of_probability * n_classes + (4 if wanted.uncertainty else 0)


def make_plan(
    volume: VolumeLike,
    model: Model,
    device: Device | str = "auto",
    *,
    wanted: Wanted | None = None,
    output: str | PathLike[str] | None = None,
    n_planes: int | None = None,
    slab_planes: int | None = None,
    force: bool = False,
    measure: bool = True,
    memory_limit: int | None = None,
    overwrite: bool = False,
    **format_options: Any,
) -> Plan:
    """Predict what :func:`gpu_tomoclass.classification.classify_volume.classify` will need.

    Memory comes from a dry run of the same code that allocates it; time from classifying a few planes for real.

    Parameters
    ----------
    volume : Volume, path or array
    model : Model
    device : str or Device
        ``"auto"`` is the first that works.
    wanted : Wanted, optional
    output : path, optional
        Where the outputs will be: its disk is looked at, and TIFF and MRC need their size twice.
    n_planes : int, optional
        Default all of the volume.
    slab_planes : int, optional
        The value that will be given to ``--slab-planes``.
    force : bool
        Although the voxel size differs from that of the training.
    measure : bool
        Classify some planes to know the time.
    memory_limit : int, optional
        Bytes, as the run will be given: on a CPU fewer threads keep to it, on a GPU smaller slabs.
    overwrite : bool
    **format_options
        As the run will be given: what it would refuse for its output is refused here.

    Raises
    ------
    ModelError
        If the model does not fit the volume.
    UsageError, DataError
        If the output cannot be written as asked for, or exists.
    ResourceError
        If the memory limit holds not even one thread, or the output's folder cannot be written to.
    """
    volume, device = open_volume(volume), choose_device(device)
    fits_volume(model, volume, force=force)
    wanted = wanted or Wanted()
    n_planes = volume.shape[0] if n_planes is None else n_planes
    blocks, aspect = used_blocks(model), aspect_of(volume.voxel_size)
    reach = halo(blocks, aspect) + smoothing_reach(wanted, volume)
    if output is not None:
        products = products_of(output, model.classes, wanted)
        check_products(
            products, shape=(n_planes, *volume.shape[1:]), inputs=volume.inputs(), overwrite=overwrite, **format_options
        )
    if memory_limit is not None and not device.has_own_memory:
        device = device.with_threads(threads_within(memory_limit, volume, model, device, wanted=wanted))
    plane_device, n_threads = side_by_side(device, blocks) if n_planes > 1 else (device, 1)
    n_threads = min(n_threads, n_planes)
    memory = thread_memory(model, device.name, volume.shape[1:], wanted=wanted, depth=volume.shape[0], aspect=aspect)
    slab = slab_planes or min(n_planes, 1 if device.has_own_memory else slab_on_cpu(blocks, _plane_pixels(volume)))
    free_on_device = device.free_memory() if device.has_own_memory else None
    if slab_planes is None and free_on_device is not None:
        usable = MEMORY_SHARE * free_on_device
        usable = usable if memory_limit is None else min(usable, memory_limit)
        room = (usable - memory.shared) / n_threads - memory.fixed
        slab = max(1, min(MAX_SLAB, n_planes, int(room // memory.per_plane)))
    if free_on_device is not None and memory.bytes(slab, n_threads=n_threads) > free_on_device:
        n_threads = 1  # as the run will find out
    on_device = memory.bytes(slab, n_threads=n_threads)
    process = (resident_bytes() or PROCESS_BYTES) + WORK_BYTES
    flight = in_flight_bytes(
        volume, n_threads=n_threads, slab_planes=slab, n_classes=len(model.classes), wanted=wanted, reach=reach
    )
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
    """Number of threads of a CPU device that keep the process within ``limit`` bytes.

    Raises
    ------
    ResourceError
        If not even one does.
    """
    _, most = device.side_by_side()
    slabs_at_once = side_by_side(device, used_blocks(model))[1]
    needed = _Needed(volume, model, device, wanted)
    fitting = [n for n in range(1, slabs_at_once + 1) if needed(n, 1) <= limit]
    if not fitting:
        raise ResourceError(
            f"one thread needs {size_text(needed(1, 1))} of memory, the limit is {size_text(limit)}",
            do="raise --memory-limit, or train with fewer features",
        )
    return fitting[-1] if slabs_at_once == most else most


def slab_within(limit: int, volume: Volume, model: Model, device: Device, wanted: Wanted) -> int:
    """Number of planes at once that keep one thread of a CPU device within ``limit`` bytes; at least one."""
    n_planes = slab_on_cpu(used_blocks(model), _plane_pixels(volume))
    if n_planes == 1:
        return 1
    needed = _Needed(volume, model, device, wanted)
    while n_planes > 1 and needed(1, n_planes) > limit:
        n_planes -= 1
    return n_planes


class _Needed:
    """Bytes that the process takes, by the number of threads and of planes that each has at once."""

    def __init__(self, volume: Volume, model: Model, device: Device, wanted: Wanted) -> None:
        aspect = aspect_of(volume.voxel_size)
        self._reach = halo(used_blocks(model), aspect) + smoothing_reach(wanted, volume)
        self._memory = thread_memory(
            model, device.name, volume.shape[1:], wanted=wanted, depth=volume.shape[0], aspect=aspect
        )
        self._volume, self._n_classes, self._wanted = volume, len(model.classes), wanted
        self._process = (resident_bytes() or PROCESS_BYTES) + WORK_BYTES

    def __call__(self, n_threads: int, n_planes: int) -> int:
        flight = in_flight_bytes(
            self._volume,
            n_threads=n_threads,
            slab_planes=n_planes,
            n_classes=self._n_classes,
            wanted=self._wanted,
            reach=self._reach,
        )
        return self._process + flight + self._memory.bytes(n_planes, n_threads=n_threads)


def _plane_pixels(volume: Volume) -> int:
    return volume.shape[1] * volume.shape[2]


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
    wanted = replace(wanted, smooth=None)  # one plane again and again says nothing about it
    classifier = SlabClassifier(model, device, wanted=wanted, n_threads=n_threads)
    reach = classifier.classifier.halo(aspect_of(volume.voxel_size))
    start = max(0, (volume.shape[0] - slab) // 2)
    if reach:
        stop = min(start + slab, volume.shape[0])
        prepared = prepare_slab(volume, start, stop, halo=reach, scale=model.intensity, nan="fill")
    else:  # a plane again and again
        plane = prepare_slab(volume, volume.shape[0] // 2, volume.shape[0] // 2 + 1, scale=model.intensity, nan="fill")
        prepared = PreparedSlab(list(plane.planes) * slab, Place.whole(slab))
    classifier.classify(0, prepared, {})  # compiles
    n_counted = 2 * n_threads
    finished: list[float] = []
    Pipeline(
        lambda: (prepared for _ in range(n_threads + n_counted)),
        lambda given: classifier.classify(0, given, {}),
        lambda slabs: finished.append(time.perf_counter()),
        workers=n_threads,
    ).run()
    return (finished[-1] - finished[n_threads - 1]) / (n_counted * prepared.place.n_wanted)
