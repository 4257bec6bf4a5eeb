"""Arrays through a model: labels and probabilities in memory, from the same code that classifies a file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpu_tomoclass.classification.backoff import influenced
from gpu_tomoclass.classification.needs import within_memory
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.slab import UNLABELLED, Slab
from gpu_tomoclass.classification.slabs import SlabSize
from gpu_tomoclass.classification.workers import ThreadWorkers, Work
from gpu_tomoclass.device import Array, Device, choose_device, gpu_of, is_out_of_memory
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import IntensityScale, Place, aspect_of, prepare_on_device, scale_on_device
from gpu_tomoclass.model import Model, check_fits, fits_volume
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Planes, Volume, VoxelSize, checked_voxel_size, open_volume


class Prediction(NamedTuple):
    """Labels and probabilities of planes; arrays of the library that the planes came in, NumPy's or CuPy's.

    Attributes
    ----------
    labels : numpy.ndarray or cupy.ndarray
        uint8 class values, of the shape of the planes: (nz, ny, nx), or (ny, nx) for one plane. 0 only where
        ``nan="mask"`` left a voxel out.
    probabilities : numpy.ndarray, cupy.ndarray or None
        (n_classes, nz, ny, nx) or (n_classes, ny, nx) float32, in the order of the model's classes.
    """

    labels: Any
    probabilities: Any


def predict(
    model: Model,
    planes: Planes | Volume,
    *,
    probabilities: bool = True,
    intensity: str = "model",
    nan: str = "error",
    voxel_size: float | VoxelSize | None = None,
    force: bool = False,
    device: Device | str = "auto",
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Classify planes in memory; equal in every bit to what ``classify`` writes of a volume of these planes.

    Nothing is written. A filter that looks across planes sees the first and the last of these planes as the ends of
    the volume.

    Parameters
    ----------
    model : Model
    planes : array or Volume
        (nz, ny, nx), or (ny, nx) for one plane, as stored: of the type that the model was trained on. NumPy, Zarr or
        Dask; or CuPy, then nothing goes through the host's memory, and the result is CuPy's. It may be empty.
    probabilities : bool
        Whether they are wanted; they take 4 bytes per class and voxel.
    intensity : {"model", "auto", "none"}
        The scale recorded in the model, one measured on these planes, or none.
    nan : {"error", "fill", "mask"}
        Voxels that are not finite; see :func:`gpu_tomoclass.features.prepare.prepare_plane`.
    voxel_size : float or (z, y, x), optional
        Edge of a voxel in nm; default that of the training.
    force : bool
        Go on although the voxel size differs from that of the training.
    device : str or Device
        ``"auto"`` is the first that works; for CuPy's arrays the GPU that they lie on.
    memory_limit : int, optional
        Bytes that the process (on a GPU: its arrays there) may take beside the result; see
        :func:`~gpu_tomoclass.classification.classify_volume.classify`.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    ModelError
        If the model does not fit the planes.
    DataError
        If they cannot be used.
    UsageError
        If they are no planes, or the device cannot take them.
    ResourceError
        If memory is not enough for one plane.
    """
    given: dict[str, Any] = {"intensity": intensity, "nan": nan, "force": force, "device": device,
                             "memory_limit": memory_limit, "progress": progress}  # fmt: skip
    if isinstance(planes, Volume):
        return _in_memory(model, planes, want=probabilities, **given)
    array: Any = planes
    shape = tuple(int(n) for n in getattr(array, "shape", ()))
    stack = array[None] if len(shape) == 2 else array
    edges = model.voxel_size if voxel_size is None else checked_voxel_size(voxel_size)
    gpu = gpu_of(stack)
    if len(shape) in (2, 3) and 0 in shape:  # Dask asks so what type the result has
        found = _made((1, *shape)[-3:], len(model.classes) if probabilities else None)
    elif gpu is not None:
        found = _on_gpu(model, stack, gpu, want=probabilities, voxel_size=edges, **given)
    else:
        found = _in_memory(model, open_volume(stack, voxel_size=edges), want=probabilities, **given)
    if len(shape) != 2:
        return found
    return Prediction(found.labels[0], found.probabilities[:, 0] if probabilities else None)


def _made(shape: tuple[int, ...], n_classes: int | None) -> Prediction:
    labels = np.empty(shape, np.uint8)
    return Prediction(labels, None if n_classes is None else np.empty((n_classes, *shape), np.float32))


class _Arrays:
    """Arrays that finished slabs are copied into."""

    def __init__(self, made: Prediction) -> None:
        self.made = made
        self.n_done = 0

    def keep(self, slab: Slab) -> None:
        planes = slice(slab.start, slab.stop)
        self.made.labels[planes] = slab.values["labels"]
        if self.made.probabilities is not None:
            self.made.probabilities[:, planes] = slab.values["probabilities"]
        self.n_done += slab.stop - slab.start


def _in_memory(
    model: Model,
    volume: Volume,
    *,
    want: bool,
    intensity: str,
    nan: str,
    force: bool,
    device: Device | str,
    memory_limit: int | None,
    progress: Progress | None,
) -> Prediction:
    fits_volume(model, volume, force=force)
    scale = model.intensity if intensity == "model" else IntensityScale.for_volume(volume, mode=intensity)
    options = RunOptions(
        probabilities="float32" if want else None, intensity=intensity, nan=nan, memory_limit=memory_limit
    )
    work = Work(volume, model, options, scale=scale)
    arrays = _Arrays(_made(volume.shape, len(model.classes) if want else None))

    def finished(counts: np.ndarray) -> None:
        if progress is not None:
            progress(arrays.n_done, len(volume))

    chosen, passes = within_memory(memory_limit, volume, model, choose_device(device), products=options.products)
    workers = ThreadWorkers(work, chosen, n_planes=len(volume), keep=arrays.keep, passes=passes)
    workers.run(np.arange(len(volume)), finished=finished, should_stop=lambda: False)
    return arrays.made


def _on_gpu(
    model: Model,
    planes: Array,
    gpu_id: int,
    *,
    want: bool,
    voxel_size: VoxelSize | None,
    intensity: str,
    nan: str,
    force: bool,
    device: Device | str,
    memory_limit: int | None,
    progress: Progress | None,
) -> Prediction:
    """CuPy's planes (nz, ny, nx) on the GPU that they lie on; the host learns only where values are not finite."""
    options = RunOptions(intensity=intensity, nan=nan, memory_limit=memory_limit)
    gpu = choose_device("cuda" if device == "auto" else device, gpu_id)
    if not gpu.has_own_memory:
        raise UsageError(f"the {gpu.name} device cannot take CuPy arrays", do='choose "auto", or give NumPy arrays')
    if len(planes.shape) != 3:
        raise DataError(f"planes have {len(planes.shape)} axes, not two or three (z, y, x)", where="cupy array")
    nz, ny, nx = (int(n) for n in planes.shape)
    check_fits(model, dtype=np.dtype(planes.dtype), shape=(nz, ny, nx), voxel_size=voxel_size, force=force)
    scale = model.intensity if intensity == "model" else scale_on_device(gpu, planes, mode=intensity)
    classifier, aspect = Classifier(model, gpu), aspect_of(voxel_size)
    size = SlabSize(gpu, classifier.blocks, memory_limit=memory_limit)
    labels = gpu.empty((nz, ny, nx), np.uint8)
    found = gpu.empty((len(model.classes), nz, ny, nx), np.float32) if want else None
    done = 0
    while done < nz:
        n = min(nz - done, size.planes(classifier.memory))
        place = Place.with_halo(done, done + n, depth=nz, halo=classifier.halo(aspect), aspect=aspect)
        core = slice(done, done + n)
        try:
            images, slab = prepare_on_device(gpu, planes, place, scale=scale, nan=nan)
            part = None if found is None else found[:, core]
            classifier.classify_on_device(images, place=place, labels=labels[core], probabilities=part)
            if options.products.mask_filled and any(plane.filled is not None for plane in slab.planes):
                gpu.put(labels[core], influenced(slab, classifier.blocks), UNLABELLED)
        except Exception as error:
            if not is_out_of_memory(error) or size.take_less(n) is None:
                raise
            classifier.release()
            continue
        done += n
        if progress is not None:
            progress(done, nz)
    return Prediction(labels, found)
