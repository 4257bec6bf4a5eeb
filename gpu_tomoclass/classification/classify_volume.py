"""Send the unfinished planes of a volume to the workers (threads or cluster processes) and record the results.

The result does not depend on the size of slabs, the number of threads, which planes are in one run, or interruptions:
every plane is computed from itself alone. Memory holds a few planes, whatever the depth of the volume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classification.array_output import ArrayOutput
from gpu_tomoclass.classification.needs import within_memory
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.products import Product, check_products, products_of
from gpu_tomoclass.classification.slab import UNLABELLED
from gpu_tomoclass.classification.smoothing import sigma_in_voxels
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.classification.workers import PlaneWorkers, ThreadWorkers, Work
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, UsageError
from gpu_tomoclass.features import IntensityScale
from gpu_tomoclass.forest import nvforest_version
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.training import adapt as adapted
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import NO_BIN, Region, Volume, VolumeLike, moved, open_volume, with_place

if TYPE_CHECKING:
    from gpu_tomoclass.classification.cluster import Cluster


@dataclass(frozen=True)
class ClassifyResult:
    """Result of a run: the files written and the time taken.

    Attributes
    ----------
    path : str
        The label volume; ``"numpy array"`` where the output is one.
    other_paths : tuple of str
        Probabilities (one file per class where the format holds one image per file: MRC) and uncertainty.
    n_planes, n_resumed : int
        Planes in all, and those that an interrupted run had finished before.
    counts : dict
        Voxels per class name (and ``"unlabelled"`` where masked).
    notes : list of str
    seconds : float
        Wall time.
    seconds_per_plane : dict
        Thread seconds per family, and ``"forest"``, per plane.
    profile : dict
        JSON: busy seconds of ``read``, ``compute`` and ``write`` (sums over threads), ``finish`` (what follows the last
        plane: syncing, renaming, and what was not made ahead), ``wall``; ``threads``; ``slowest_stage_share``, how much
        of the wall time of the planes the slowest stage was busy.
    device : str
        What computed it.
    """

    path: str
    other_paths: tuple[str, ...]
    n_planes: int
    n_resumed: int
    counts: Mapping[str, int]
    notes: Sequence[str]
    seconds: float
    seconds_per_plane: Mapping[str, float]
    profile: Mapping[str, Any]
    device: str


def classify(
    volume: VolumeLike,
    model: Model,
    *,
    output: str | PathLike[str] | Any,
    probabilities: str | None = None,
    uncertainty: str | None = None,
    smooth: float | None = None,
    planes: tuple[int, int] | None = None,
    crop: str | None = None,
    mask: VolumeLike | None = None,
    adapt: str = "off",
    intensity: str = "model",
    nan: str = "error",
    force: bool = False,
    forest_engine: str = "kernels",
    device: Device | str = "auto",
    cluster: Cluster | None = None,
    slab_planes: int | None = None,
    memory_limit: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    **format_options: Any,
) -> ClassifyResult:
    """Classify a volume plane by plane into a label volume, or into an array.

    Labels are the class values of the model (1..255); 0 is "not classified": masked voxels
    (``nan="mask"``) and planes that could not be read (``allow_missing_planes``).

    While it runs, finished planes are kept beside the output (see :mod:`gpu_tomoclass.classification.staging`); after
    an interruption
    of any kind the same call goes on with the others, and the result is the same as without interruption.

    Parameters
    ----------
    volume : Volume, path or array
        What :func:`gpu_tomoclass.volumes.opening.open_volume` takes.
    model : Model
    output : path or array
        ``.ome.zarr``, ``.zarr``, ``.tif``, ``.mrc``; class names, colours and provenance travel in its metadata. Or an
        array of NumPy or Zarr (nz, ny, nx) that takes the labels: an interrupted run leaves planes in it and is not
        resumed, and probabilities and uncertainty have no place.
    probabilities : {None, "float32", "uint8"}
        Also write probabilities per class to ``<output>_probabilities``, same format.
    uncertainty : {None, "margin", "entropy"}
        Also write how unsure the forest is to ``<output>_uncertainty``; see
        :class:`gpu_tomoclass.classification.slab.ProductOptions`.
    smooth : float, optional
        Sigma in nm of a Gaussian that probabilities are smoothed by, in three dimensions, before the class is taken:
        fewer specks, and small things go. Probabilities and uncertainty are the smoothed ones.
    planes : (start, stop), optional
        Classify only these planes; the output has stop - start planes.
    crop : str, optional
        ``"z0:z1,y0:y1,x0:x1"``: classify only this box, of which an end may be left out; the output has its shape.
    mask : Volume, path or array, optional
        Of the volume's shape: voxels where it is 0 become 0, and planes without any other are not computed. Features
        are the same as without mask and crop: they see what is around.
    adapt : {"off", "auto"}
        ``"auto"``: look first whether the model fits the volume, and where it does not, adapt it to it (see
        :func:`gpu_tomoclass.training.adapt`); the map of grey values is in the provenance.
    intensity : {"model", "auto", "none"}
        The scale recorded in the model, one measured on this volume, or none.
    nan : {"error", "fill", "mask"}
        See :func:`gpu_tomoclass.features.prepare.prepare_slab`. ``"mask"`` also unlabels every pixel whose
        filters looked at a filled voxel.
    force : bool
        Go on although the voxel size differs from that of the training.
    forest_engine : {"kernels", "nvforest"}
        Who walks the trees: our own kernels, or NVIDIA's nvForest, as a second opinion: on the GPU with the ``cuda``
        device, else on the CPU.
    device : str or Device
        ``"auto"`` is the first that works, with all cores; on a CPU each thread needs memory for one plane's features.
    cluster : Cluster, optional
        Compute in the processes of a Dask cluster instead of in this one; it has its devices.
    slab_planes : int, optional
        Planes at once, never changed; default what the device's memory holds, halved where that was too much.
    memory_limit : int, optional
        Bytes that the process (on a GPU: its arrays on the GPU) may take; fewer threads or smaller slabs keep to it.
        Where compiled kernels run on a CPU and it does not hold the features of a plane, they are computed in passes.
        Default: what is free. On a cluster: of each of its processes.
    overwrite : bool
    restart : bool
        Throw away what an interrupted run has kept.
    should_stop : callable, optional
        Asked before each slab is read; once True, what is in flight is finished and StoppedError raised.
    progress : callable, optional
        Called with (planes done, planes in all).
    **format_options
        Of :func:`gpu_tomoclass.volumes.opening.create_volume`.

    Raises
    ------
    ModelError
        If the model does not fit the volume, or an interrupted run of another kind is in the way.
    DataError
        If a plane cannot be read or used, or the output exists.
    UsageError
        If ``planes`` is no range of the volume, or an option has no such value.
    ResourceError
        If memory or disk is not enough, another process writes the same output, or the cluster cannot be used.
    StoppedError
        If ``should_stop`` said so.
    """
    volume = open_volume(volume)
    options = RunOptions(
        probabilities=probabilities,
        uncertainty=uncertainty,
        smooth=smooth,
        planes=planes,
        crop=crop,
        mask=fspath(mask) if isinstance(mask, (str, PathLike)) else None if mask is None else open_volume(mask),
        adapt=adapt,
        intensity=intensity,
        nan=nan,
        force=force,
        forest_engine=forest_engine,
        slab_planes=slab_planes,
        memory_limit=memory_limit,
        overwrite=overwrite,
        restart=restart,
    )
    if cluster is not None and device != "auto":
        raise UsageError("a device and a cluster contradict each other", do="give the device to the cluster")
    if adapt != "off" and intensity != "model":
        raise UsageError("adapt and intensity both change the model's scale", do="give one of them")
    chosen = choose_device(device if cluster is None else "numpy")  # a cluster has its own, this one is not asked
    notes = list(volume.notes)
    if adapt == "auto":
        made = adapted(
            model,
            volume,
            device=chosen if cluster is None else "auto",
            planes=planes,
            crop=crop,
            mask=options.mask,
            nan=nan,
            force=force,
        )
        model = made.model
        notes.append(made.reason)
    notes += fits_volume(model, volume, force=force)
    region = Region.of(volume, planes=planes, crop=crop, mask=options.mask)
    start, stop = region.box[0]
    inputs = [*volume.inputs(), *(region.mask.inputs() if region.mask is not None else ())]
    scale = model.intensity if intensity == "model" else IntensityScale.for_volume(volume, mode=intensity)
    shape = region.box_shape
    keeper: Staging | ArrayOutput | None = None
    products: list[Product] = []
    if isinstance(output, (str, PathLike)):
        products = products_of(output, model.classes, options.products)
        check_products(products, shape=shape, inputs=inputs, overwrite=True, **format_options)
    elif cluster is not None:
        raise UsageError("processes of a cluster cannot write into an array", do="give a path")
    else:
        keeper = ArrayOutput(output, shape=shape, volume=volume, options=options, format_options=format_options)
    work = Work(volume, model, options, scale=scale, first=start)
    passes = None
    if cluster is None:
        chosen, passes = within_memory(memory_limit, volume, model, chosen, products=options.products)
        if passes is not None:
            if forest_engine != "kernels":
                raise ResourceError(
                    f"memory does not hold the features of a plane, and {forest_engine} wants all of them at once",
                    do="give more memory, or leave --forest-engine out",
                )
            notes.append(f"memory does not hold the features of a plane: it is computed in {len(passes.groups)} passes")
    device_name = chosen.name if cluster is None else cluster.device
    metadata = provenance(volume, model, region=region, scale=scale, nan=nan)
    if forest_engine != "kernels":
        metadata["settings"]["forest_engine"] = f"{forest_engine} {nvforest_version()}"
    if smooth is not None:
        sigma_in_voxels(smooth, volume.voxel_size)
        metadata["settings"]["smooth_nm"] = smooth
    metadata = with_place(metadata, moved(volume.metadata, first=region.first, voxel_size=volume.voxel_size))
    began = time.perf_counter()
    if keeper is None:
        keeper = Staging(
            output,
            products,
            shape=shape,
            run={
                **metadata,
                "device": device_name,
                "outputs": {p.name: [fspath(p.path), p.dtype.name] for p in products},
                "format": format_options,
            },
            voxel_size=volume.voxel_size,
            metadata=metadata,
            format_options=format_options,
            inputs=inputs,
            overwrite=overwrite,
            restart=restart,
        )
    with keeper:
        workers: PlaneWorkers
        if cluster is not None and isinstance(keeper, Staging):
            workers = cluster.workers(work, keeper)
        else:
            folder = keeper.folder if isinstance(keeper, Staging) else None
            n_todo = int((~keeper.done).sum())
            workers = ThreadWorkers(
                work,
                chosen,
                n_planes=n_todo,
                keep=keeper.write,
                n_writers=keeper.n_writers(on_gpu=chosen.has_own_memory),
                passes=passes,
                folder=folder,
            )
        run = _Run(volume, keeper, workers)
        run.go(should_stop=should_stop, progress=progress)
        notes += [*run.notes, *keeper.notes]
        notes += [note for note in volume.notes if note not in notes]  # planes found missing on the way
        finish_began = time.perf_counter()
        outputs = keeper.finish()
    finished = time.perf_counter()
    counts = {c.name: int(run.n_voxels[c.value]) for c in model.classes}
    if run.n_voxels[UNLABELLED]:
        counts["unlabelled"] = int(run.n_voxels[UNLABELLED])
    n_computed = max(1, stop - start - run.n_resumed)
    return ClassifyResult(
        path=outputs[0],
        other_paths=tuple(outputs[1:]),
        n_planes=stop - start,
        n_resumed=run.n_resumed,
        counts=counts,
        notes=list(dict.fromkeys(notes)),
        seconds=finished - began,
        seconds_per_plane={name: value / n_computed for name, value in workers.timings.items()},
        profile=run.profile(finish=finished - finish_began, wall=finished - began),
        device=device_name,
    )


class _Run:
    """The planes of one run: what is left of them goes through the workers."""

    def __init__(self, volume: Volume, keeper: Staging | ArrayOutput, workers: PlaneWorkers) -> None:
        self.volume, self.keeper, self.workers = volume, keeper, workers
        self.n_resumed = keeper.n_done
        self._todo = np.flatnonzero(~keeper.done)
        self._planes_seconds = 0.0
        self.n_voxels = np.zeros(256, dtype=np.int64)

    @property
    def notes(self) -> list[str]:
        if not self.n_resumed:
            return self.workers.notes
        return [f"{self.n_resumed} planes had been done by an interrupted run", *self.workers.notes]

    def go(self, *, should_stop: Callable[[], bool], progress: Progress | None) -> None:
        """Classify what is not done yet."""

        def finished(n_voxels: np.ndarray) -> None:
            self.n_voxels += n_voxels
            if progress is not None:
                progress(self.keeper.n_done, self.keeper.shape[0])

        finished(self._count_resumed())
        if self._todo.size:
            began = time.perf_counter()
            try:
                self.workers.run(self._todo, finished=finished, should_stop=should_stop)
            except Exception as error:
                if self.keeper.n_done:
                    error.add_note(f"{self._kept()}; once the cause is mended, {self.keeper.go_on}")
                raise
            self._planes_seconds = time.perf_counter() - began
        try:
            self.volume.check_unchanged()
        except DataError:
            self.keeper.done[:] = False  # some planes may be of the old file: nothing of it is kept
            raise
        if not self.keeper.done.all():
            kept = self._kept() if self.keeper.n_done else "no plane was finished"
            raise StoppedError(f"stopped: {kept}", do=self.keeper.go_on)

    def _kept(self) -> str:
        done, n = self.keeper.n_done, self.keeper.shape[0]
        return f"{done} of {n} planes are done and {self.keeper.kept}"

    def _count_resumed(self) -> np.ndarray:
        n_voxels = np.zeros(256, dtype=np.int64)
        for plane in self.keeper.finished_planes():
            n_voxels += np.bincount(plane.ravel(), minlength=256)
        return n_voxels

    def profile(self, *, finish: float, wall: float) -> dict[str, Any]:
        """See :class:`ClassifyResult`."""
        seconds, planes = self.workers.seconds, self._planes_seconds
        stages = {"read": seconds.read, "compute": seconds.compute, "write": seconds.write}
        return {
            "seconds": {**stages, "finish": finish, "planes": planes, "wall": wall},
            "threads": self.workers.n_threads,
            "slowest_stage_share": self.workers.slowest_stage / planes if planes else 0.0,
            "thread_seconds": dict(self.workers.timings),
            "planes": int(self._todo.size),
        }


def provenance(volume: Volume, model: Model, *, region: Region, scale: IntensityScale, nan: str) -> dict[str, Any]:
    """Provenance of the labels: enough to make them again."""
    return {
        "made_by": f"gpu_tomoclass {__version__}",
        "model": {
            "hash": model.hash,
            "versions": dict(model.versions),
            **({"adapted": model.training["adapted"]} if "adapted" in model.training else {}),
        },
        "input": volume.fingerprint(),
        "settings": {
            "planes": list(region.box[0]),
            "axes": volume.axes,
            **({} if volume.bin == NO_BIN else {"bin": list(volume.bin)}),
            "intensity": scale.to_dict(),
            "nan": nan,
            **({} if region.box_shape[1:] == volume.shape[1:] and region.mask is None else region.to_dict()),
        },
    }
