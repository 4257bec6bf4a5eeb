"""Memory that a run needs: what threads allocate, by a dry run of the code that allocates it, and what is in flight."""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np

from gpu_tomoclass.classification.on_device import Classifier, used_blocks
from gpu_tomoclass.classification.passes import Passes, plan_passes
from gpu_tomoclass.classification.pipeline import ITEMS_AHEAD, n_writers
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.classification.slabs import MEMORY_SHARE, SlabMemory, threads_within
from gpu_tomoclass.classification.smoothing import planes_around, sigma_in_voxels
from gpu_tomoclass.device import Device, DryDevice, available_bytes, resident_bytes
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import CUBES, Aspect, Place, aspect_of, halo
from gpu_tomoclass.model import Model
from gpu_tomoclass.outputs import size_text
from gpu_tomoclass.volumes import Volume

PROCESS_BYTES = 130 * 2**20  # the interpreter and its libraries, where the system does not tell; measured
WORK_BYTES = 45 * 2**20  # compiled kernels, the writer and its compressor, what the allocator keeps; measured
LEVEL_BYTES = 24  # per pixel and writer: two planes of a channel as floats, and their means
PINNED = 2  # CuPy takes page-locked memory by powers of two, at most so many times what is asked for


def thread_memory(
    model: Model,
    device_name: str,
    shape: tuple[int, int],
    *,
    products: ProductOptions,
    depth: int | None = None,
    aspect: Aspect = CUBES,
) -> SlabMemory:
    """Memory that threads take for planes (ny, nx) of a volume of ``depth`` planes, from a dry run of the real code."""
    reach = halo(used_blocks(model), aspect)
    depth = 2 * reach + 2 if depth is None else depth
    n_classes = len(model.classes)
    n_pixels = shape[0] * shape[1]
    want_probabilities = products.needs_probabilities
    # Beside the arrays of the device: labels and their copy, and what is made of the probabilities.
    of_probability = 2 if products.needs_bytes_only else 8
    host = n_pixels * (2 + (of_probability * n_classes if want_probabilities else 0))
    if device_name == "numpy":
        per_plane = n_pixels * model.bank.bytes_per_pixel
        of_halo = per_plane - 4 * n_pixels * model.bank.n_channels
        return SlabMemory(0, min(2 * reach, depth) * of_halo, per_plane + 8 * n_pixels * n_classes + host)
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
        classifier.classify(
            planes, place=place, want_probabilities=want_probabilities, as_bytes=products.needs_bytes_only
        )
        allocated.append(device.n_bytes - shared)
        pinned.append(device.n_pinned)
    per_plane = allocated[1] - allocated[0]
    fixed = allocated[0] - per_plane
    if device_name == "native":
        return SlabMemory(shared, fixed, per_plane + host)
    return SlabMemory(shared, fixed, per_plane, host + PINNED * pinned[0])


def in_flight_bytes(
    volume: Volume,
    *,
    n_threads: int,
    slab_planes: int,
    n_classes: int,
    products: ProductOptions,
    on_gpu: bool,
    reach: int = 0,
) -> int:
    """Host memory of what is read, waits, is computed and is written at the same time; slabs share their halos of
    ``reach`` planes."""
    n_pixels = volume.shape[1] * volume.shape[2] * slab_planes
    writers = n_writers(on_gpu=on_gpu)
    given = n_pixels * (4 + volume.dtype.itemsize)
    made = n_pixels * product_bytes(n_classes, products)
    halos = 4 * volume.shape[1] * volume.shape[2] * min(2 * reach, volume.shape[0])
    around = 2 * smoothing_reach(products, volume)  # probabilities that are kept, and a slab's while they are added
    kept = 4 * n_classes * volume.shape[1] * volume.shape[2] * (around + 4 * n_threads * slab_planes)
    read, written = given * (ITEMS_AHEAD + 1 + n_threads), made * (ITEMS_AHEAD + writers + n_threads)
    levels = LEVEL_BYTES * volume.shape[1] * volume.shape[2] * writers if products.needs_probabilities else 0
    return read + written + levels + halos + (kept if products.smooth else 0)


def smoothing_reach(products: ProductOptions, volume: Volume) -> int:
    """Planes on each side whose probabilities a plane's depend on."""
    return 0 if products.smooth is None else planes_around(sigma_in_voxels(products.smooth, volume.voxel_size)[0])


def product_bytes(n_classes: int, products: ProductOptions) -> int:
    """Per voxel of all outputs."""
    of_probability = {None: 0, "float32": 4, "uint8": 1}[products.probabilities]
    return 1 + of_probability * n_classes + (4 if products.uncertainty else 0)


class ProcessMemory:
    """Bytes of host memory that the process takes, by the number of threads and of planes that each has at once."""

    def __init__(self, volume: Volume, model: Model, device: Device, products: ProductOptions) -> None:
        self._volume, self._model, self._device, self._products = volume, model, device, products

    @cached_property
    def threads(self) -> SlabMemory:
        """Memory that threads allocate; the dry run is made when this is first asked for."""
        volume = self._volume
        return thread_memory(
            self._model,
            self._device.name,
            volume.shape[1:],
            products=self._products,
            depth=volume.shape[0],
            aspect=aspect_of(volume.voxel_size),
        )

    @cached_property
    def _process(self) -> int:
        return (resident_bytes() or PROCESS_BYTES) + WORK_BYTES

    @cached_property
    def _reach(self) -> int:
        of_features = halo(used_blocks(self._model), aspect_of(self._volume.voxel_size))
        return of_features + smoothing_reach(self._products, self._volume)

    def __call__(self, n_threads: int, n_planes: int) -> int:
        threads = self.threads  # the process is looked at after the dry run, which loads libraries
        flight = in_flight_bytes(
            self._volume,
            n_threads=n_threads,
            slab_planes=n_planes,
            n_classes=len(self._model.classes),
            products=self._products,
            on_gpu=self._device.has_own_memory,
            reach=self._reach,
        )
        if self._device.has_own_memory:
            return self._process + flight + n_threads * n_planes * threads.host_per_plane
        return self._process + flight + threads.bytes(n_planes, n_threads=n_threads)


def within_memory(
    limit: int | None, volume: Volume, model: Model, device: Device, *, products: ProductOptions
) -> tuple[Device, Passes | None]:
    """The device with as many threads as keep the process within ``limit`` bytes, by default what is free; and if not
    even one does, passes that do.

    Raises
    ------
    ResourceError
        If even those need more, or there are none: they are for the ``native`` device, and not for what is smoothed.
    """
    if device.has_own_memory:
        return device, None
    blocks, given = used_blocks(model), limit is not None
    n_channels = sum(len(block.channels) for block in blocks)
    if limit is None:
        free = available_bytes()
        roughly = volume.shape[1] * volume.shape[2] * (8 * n_channels + 200) * device.side_by_side()[1]
        if free is None or roughly < MEMORY_SHARE * free:
            return device, None
        limit = (resident_bytes() or PROCESS_BYTES) + int(MEMORY_SHARE * free)
    needed = ProcessMemory(volume, model, device, products)
    try:
        return device.with_threads(threads_within(limit, needed, device=device, blocks=blocks)), None
    except ResourceError as error:
        if not device.runs_kernels or not blocks or products.smooth is not None:
            if given:
                raise
            return device.with_threads(1), None  # what it needs is an estimate
        room = limit - beside_passes(volume, model, device, products)
        aspect = aspect_of(volume.voxel_size)
        middle = volume.shape[0] // 2
        reach = halo(blocks, aspect)
        place = Place.with_halo(middle, middle + 1, depth=volume.shape[0], halo=reach, aspect=aspect)
        plan = partial(plan_passes, Classifier(model, device), volume.shape[1:], place=place)
        passes = plan(room=room)
        if not isinstance(passes, Passes) and not given:
            passes = plan(room=passes)  # what is free is an estimate: with as little as can be
        if isinstance(passes, Passes):
            return device, passes
        in_passes = size_text(limit - room + passes)
        what = f"{error.what.split(',')[0]}, in passes {in_passes}; the limit is {size_text(limit)}"
        raise ResourceError(what, do=error.do) from error


def beside_passes(volume: Volume, model: Model, device: Device, products: ProductOptions) -> int:
    """Bytes that a process takes beside what :class:`Passes` counts: itself, the forest, prepared planes, products."""
    aspect, n_classes = aspect_of(volume.voxel_size), len(model.classes)
    n_planes = min(1 + 2 * halo(used_blocks(model), aspect), volume.shape[0])
    dry = DryDevice(device.name, threads=device.threads)
    Classifier(model, dry).prepare()
    per_pixel = 4 * n_planes + product_bytes(n_classes, products)
    pixels = volume.shape[1] * volume.shape[2]
    return (resident_bytes() or PROCESS_BYTES) + WORK_BYTES + dry.n_bytes + per_pixel * pixels
