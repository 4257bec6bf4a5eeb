"""Predict what a classification will need before it is queued: memory, disk and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.classification.backoff import SlabClassifier
from gpu_tomoclass.classification.needs import ProcessMemory, beside_passes, product_bytes, within_memory
from gpu_tomoclass.classification.on_device import used_blocks
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.passes import Passes
from gpu_tomoclass.classification.pipeline import Pipeline
from gpu_tomoclass.classification.predicted import PlannedGpu, PredictedTime, predict_time
from gpu_tomoclass.classification.products import check_products, products_of
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.classification.slabs import SlabSize, cpu_planes, gpu_planes, side_by_side
from gpu_tomoclass.device import Device, available_bytes, choose_device, resident_bytes
from gpu_tomoclass.features import Place, PreparedSlab, aspect_of, halo, prepare_slab
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.outputs import free_bytes, size_text
from gpu_tomoclass.volumes import Region, Volume, VolumeLike, open_volume

PART = 1024  # pixels: edge of what is classified of a plane to know its time, where it is taken in passes
COMPRESSED_PIXELS = 4 / 3  # a pyramid of halved levels adds at most a third


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
        At most, while the run goes on: unfinished and finished outputs, not compressed, and what is kept between
        passes.
    seconds_per_plane : float or None
        Of wall time, measured on some planes of the volume; None if nothing was measured.
    warnings : sequence of str
        What will not fit as things are now.
    predicted : PredictedTime or None
        Of a GPU that is not here.
    n_passes : int
        Over a plane, where memory does not hold its features at once; else 1.
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
    predicted: PredictedTime | None = None
    n_passes: int = 1

    @property
    def seconds(self) -> float | None:
        if self.predicted is not None:
            return self.predicted.seconds
        return None if self.seconds_per_plane is None else self.seconds_per_plane * self.n_planes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        predicted = None if self.predicted is None else asdict(self.predicted)
        return {**vars(self), "warnings": list(self.warnings), "seconds": self.seconds, "predicted": predicted}


def make_plan(
    volume: VolumeLike,
    model: Model,
    device: Device | str = "auto",
    *,
    probabilities: str | None = None,
    uncertainty: str | None = None,
    smooth: float | None = None,
    output: str | PathLike[str] | None = None,
    planes: tuple[int, int] | None = None,
    slab_planes: int | None = None,
    force: bool = False,
    measure: bool = True,
    memory_limit: int | None = None,
    overwrite: bool = False,
    gpu: str | None = None,
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
    probabilities, uncertainty, smooth
        As the run will be given.
    output : path, optional
        Where the outputs will be: its disk is looked at, and TIFF and MRC need their size twice.
    planes : (start, stop), optional
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
    gpu : str, optional
        Plan for a GPU that is not here, of :func:`~gpu_tomoclass.classification.predicted.planned_gpus`: nothing is
        measured, the time is predicted. ``device`` is not looked at.
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
    volume, device = open_volume(volume), choose_device(device) if gpu is None else PlannedGpu(gpu)
    fits_volume(model, volume, force=force)
    products = RunOptions(probabilities=probabilities, uncertainty=uncertainty, smooth=smooth).products
    start, stop = Region.of(volume, planes=planes).box[0]
    n_planes = stop - start
    blocks = used_blocks(model)
    if output is not None:
        check_products(
            products_of(output, model.classes, products),
            shape=(n_planes, *volume.shape[1:]),
            inputs=volume.inputs(),
            overwrite=overwrite,
            **format_options,
        )
    device, passes = within_memory(memory_limit, volume, model, device, products=products)
    if passes is not None:
        return _plan_in_passes(
            passes, volume, model, device, products, n_planes=n_planes, output=output, measure=measure
        )
    needed = ProcessMemory(volume, model, device, products)
    plane_device, n_threads = side_by_side(device, blocks) if n_planes > 1 else (device, 1)
    n_threads = min(n_threads, n_planes)
    free_on_device = device.free_memory() if device.has_own_memory else None
    if slab_planes is not None:
        slab = slab_planes
    elif free_on_device is not None:
        slab = gpu_planes(needed.threads, free=free_on_device, n_threads=n_threads, limit=memory_limit)
    else:
        slab = 1 if device.has_own_memory else cpu_planes(blocks, volume.shape[1] * volume.shape[2])
    slab = slab if slab_planes is not None else min(n_planes, slab)
    if free_on_device is not None and needed.threads.bytes(slab, n_threads=n_threads) > free_on_device:
        n_threads = 1  # as the run will find out
    on_device = needed.threads.bytes(slab, n_threads=n_threads)
    host = needed(n_threads, slab)
    disk = _disk_bytes(volume, n_planes=n_planes, n_classes=len(model.classes), products=products, output=output)
    n_voxels = (n_planes, *volume.shape[1:])
    return Plan(
        device=device.name,
        n_threads=n_threads,
        slab_planes=slab,
        n_planes=n_planes,
        host_bytes=host,
        device_bytes=on_device if device.has_own_memory else None,
        disk_bytes=disk,
        seconds_per_plane=_measured(volume, model, plane_device, products, n_threads=n_threads, slab=slab)
        if measure and gpu is None
        else None,
        warnings=_warnings(host, disk, on_device, free_on_device, output=output),
        predicted=None
        if gpu is None
        else predict_time(
            model,
            gpu,
            shape=n_voxels,
            slab_planes=slab,
            products=products,
            aspect=aspect_of(volume.voxel_size),
            is_zarr=_is_zarr(output),
        ),
    )


def _plan_in_passes(
    passes: Passes,
    volume: Volume,
    model: Model,
    device: Device,
    products: ProductOptions,
    *,
    n_planes: int,
    output: str | PathLike[str] | None,
    measure: bool,
) -> Plan:
    host = beside_passes(volume, model, device, products) + passes.n_bytes
    disk = _disk_bytes(volume, n_planes=n_planes, n_classes=len(model.classes), products=products, output=output)
    disk += passes.scratch_bytes
    return Plan(
        device=device.name,
        n_threads=1,
        slab_planes=1,
        n_planes=n_planes,
        host_bytes=host,
        device_bytes=None,
        disk_bytes=disk,
        seconds_per_plane=_measured_on_a_part(volume, model, device, products) if measure else None,
        warnings=_warnings(host, disk, 0, None, output=output),
        n_passes=len(passes.groups),
    )


def _disk_bytes(
    volume: Volume, *, n_planes: int, n_classes: int, products: ProductOptions, output: str | PathLike[str] | None
) -> int:
    voxels = n_planes * volume.shape[1] * volume.shape[2]
    return int(voxels * product_bytes(n_classes, products) * (COMPRESSED_PIXELS if _is_zarr(output) else 2))


def _is_zarr(output: str | PathLike[str] | None) -> bool:
    return output is None or fspath(output).rstrip("/\\").lower().endswith(".zarr")


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


def _measured_on_a_part(volume: Volume, model: Model, device: Device, products: ProductOptions) -> float:
    """Wall seconds per plane, by the middle of one, which is computed at once."""
    middle = volume.shape[0] // 2
    reach = halo(used_blocks(model), aspect_of(volume.voxel_size))
    whole = prepare_slab(volume, middle, middle + 1, halo=reach, scale=model.intensity, nan="fill")
    ny, nx = volume.shape[1:]
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in ((ny, min(ny, PART)), (nx, min(nx, PART))))
    planes = [replace(plane, image=np.ascontiguousarray(plane.image[part]), filled=None) for plane in whole.planes]
    classifier = SlabClassifier(model, device, products=products)
    seconds = 0.0
    for _ in range(2):  # the first one compiles
        began = time.perf_counter()
        classifier.classify(0, PreparedSlab(planes, whole.place), {})
        seconds = time.perf_counter() - began
    return seconds * ny * nx / planes[0].image.size


def _measured(
    volume: Volume, model: Model, device: Device, products: ProductOptions, *, n_threads: int, slab: int
) -> float:
    """Wall seconds per plane: some slabs through the pipeline, the first of each thread not counted (it allocates)."""
    products = replace(products, smooth=None)  # one plane again and again says nothing about it
    pixels = volume.shape[1] * volume.shape[2]
    size = SlabSize(device, used_blocks(model), n_threads=n_threads, plane_pixels=pixels, most=slab)
    classifier = SlabClassifier(model, device, products=products, size=size)
    reach = classifier.classifier.halo(aspect_of(volume.voxel_size))
    start = max(0, (volume.shape[0] - slab) // 2)
    if reach:
        stop = min(start + slab, volume.shape[0])
        prepared = prepare_slab(volume, start, stop, halo=reach, scale=model.intensity, nan="fill")
    else:  # a plane again and again
        plane = prepare_slab(volume, volume.shape[0] // 2, volume.shape[0] // 2 + 1, scale=model.intensity, nan="fill")
        prepared = PreparedSlab(list(plane.planes) * slab, Place.whole(slab, aspect=plane.place.aspect))
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
