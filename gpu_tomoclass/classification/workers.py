"""Workers that classify the planes of a run: threads of this process; cluster.py has those in other processes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike

import numpy as np

from gpu_tomoclass.classification.backoff import SlabClassifier
from gpu_tomoclass.classification.needs import ProcessMemory
from gpu_tomoclass.classification.on_device import used_blocks
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.passes import Passes
from gpu_tomoclass.classification.pipeline import Pipeline, StageSeconds, one_after_the_other
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.classification.slabs import MAX_SLAB, SlabSize, cpu_planes, planes_within, runs, side_by_side
from gpu_tomoclass.device import Device
from gpu_tomoclass.features import (
    Aspect,
    IntensityScale,
    Place,
    PreparedPlane,
    PreparedSlab,
    aspect_of,
    prepare_slab,
)
from gpu_tomoclass.model import Model
from gpu_tomoclass.volumes import Region, Volume

SECOND_PLANES = 4  # of a slab that nvForest is asked about: it is a second opinion, not a fast one
Finished = Callable[[np.ndarray], None]  # told the voxels per label value, (256,) int64, of planes that are finished


@dataclass(frozen=True)
class Work:
    """Work to be done with every plane of a run.

    Attributes
    ----------
    volume : Volume
    model : Model
    options : RunOptions
    scale : IntensityScale
        What ``options.intensity`` stands for.
    first : int
        The plane of the volume that is plane 0 of the output.
    """

    volume: Volume
    model: Model
    options: RunOptions
    scale: IntensityScale
    first: int = 0

    def prepared(
        self, start: int, stop: int, *, halo: int = 0, held: MutableMapping[int, PreparedPlane] | None = None
    ) -> PreparedSlab:
        """Planes of the output, read and prepared, with a halo; see
        :func:`gpu_tomoclass.features.prepare.prepare_slab`."""
        first, last = self.first + start, self.first + stop
        outside = [self.region.outside(z) for z in range(first, last)]
        if not halo and all(found is not None and found.all() for found in outside):  # need not be read
            nothing = np.zeros(self.volume.shape[1:], np.float32)
            place = Place.with_halo(first, last, depth=self.volume.shape[0], halo=0, aspect=self.aspect)
            return PreparedSlab([PreparedPlane(nothing, outside=found) for found in outside], place)
        slab = prepare_slab(self.volume, first, last, halo=halo, scale=self.scale, nan=self.options.nan, held=held)
        planes = list(slab.planes)
        for i, found in enumerate(outside, start=slab.place.wanted.start):
            if found is not None:
                planes[i] = replace(planes[i], outside=found)
        return replace(slab, planes=planes)

    @cached_property
    def region(self) -> Region:
        """Voxels that are asked for."""
        options = self.options
        return Region.of(self.volume, planes=options.planes, crop=options.crop, mask=options.mask)

    @property
    def aspect(self) -> Aspect:
        """Of the volume's voxels."""
        return aspect_of(self.volume.voxel_size)

    def slab_classifier(
        self,
        device: Device,
        *,
        n_threads: int,
        passes: Passes | None = None,
        folder: str | PathLike[str] | None = None,
    ) -> SlabClassifier:
        """Classifier of prepared slabs for ``n_threads`` threads; ``device`` is that of one thread. See
        :class:`~gpu_tomoclass.classification.backoff.SlabClassifier`."""
        options, limit, most = self.options, self.options.memory_limit, MAX_SLAB
        blocks, plane_pixels = used_blocks(self.model), self.volume.shape[1] * self.volume.shape[2]
        if limit is not None and not device.has_own_memory and passes is None:
            needed = ProcessMemory(self.volume, self.model, device, options.products)
            most = planes_within(limit, needed, most=cpu_planes(blocks, plane_pixels))
        if options.forest_engine != "kernels":  # all features of a slab are kept, on a GPU too
            most = min(most, SECOND_PLANES)
        size = SlabSize(
            device,
            blocks,
            n_threads=n_threads,
            plane_pixels=plane_pixels,
            fixed=options.slab_planes,
            memory_limit=limit,
            most=most,
        )
        return SlabClassifier(
            self.model,
            device,
            products=options.products,
            size=size,
            in_plane=self.region.in_plane,
            voxel_size=self.volume.voxel_size,
            passes=passes,
            folder=folder,
            forest_engine=options.forest_engine,
        )


class PlaneWorkers(ABC):
    """Classify planes and hand them on to whoever keeps them.

    Attributes
    ----------
    n_threads : int
        How many planes or slabs are computed at the same time.
    seconds : StageSeconds
        Busy time of the stages, as far as the run has come.
    timings : dict
        Thread seconds per family, and ``"forest"``.
    notes : list of str
    """

    n_threads: int

    def __init__(self, work: Work) -> None:
        self.work = work
        self.seconds = StageSeconds()
        self.timings: dict[str, float] = defaultdict(float)
        self.notes: list[str] = []

    @abstractmethod
    def run(self, todo: np.ndarray, *, finished: Finished, should_stop: Callable[[], bool]) -> None:
        """Take the planes ``todo`` (rising numbers) through; see
        :func:`gpu_tomoclass.classification.classify_volume.classify`.

        Parameters
        ----------
        todo : numpy.ndarray
        finished : callable
            Called after planes were recorded, by one thread at a time.
        should_stop : callable
            Once it says True, what is in flight is finished and the rest left.
        """

    @property
    @abstractmethod
    def slowest_stage(self) -> float:
        """Busy seconds of the stage that the others had to wait for."""


class ThreadWorkers(PlaneWorkers):
    """Threads of this process around one device: one reads, some compute, the caller's and others write.

    Parameters
    ----------
    work : Work
    device : Device
    n_planes : int
        How many there will be to do.
    keep : callable
        Given each finished slab, by ``n_writers`` threads at the same time.
    n_writers : int
    passes : Passes, optional
        Take planes one by one, each with all threads and in these passes, and read nothing ahead.
    folder : path, optional
        Of what is kept between passes; default the system's for such files.
    """

    def __init__(
        self,
        work: Work,
        device: Device,
        *,
        n_planes: int,
        keep: Callable[[Slab], None],
        n_writers: int = 1,
        passes: Passes | None = None,
        folder: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(work)
        self._keep, self._n_writers = keep, n_writers
        thread_device, self.n_threads = device, 1
        if n_planes > 1 and passes is None:  # planes side by side; a single one has all threads to itself
            thread_device, n_threads = side_by_side(device, used_blocks(work.model))
            self.n_threads = min(n_threads, n_planes)
        self._slabs = work.slab_classifier(thread_device, n_threads=self.n_threads, passes=passes, folder=folder)
        if self._slabs.in_passes is not None:
            self._slabs.in_passes.check_disk()
        self._halo = self._slabs.halo(work.aspect)
        self.notes = self._slabs.notes
        self._timings_lock, self._finished_lock = threading.Lock(), threading.Lock()

    def run(self, todo: np.ndarray, *, finished: Finished, should_stop: Callable[[], bool]) -> None:
        def read() -> Iterator[tuple[int, PreparedSlab]]:
            held: dict[int, PreparedPlane] = {}  # halos overlap
            for start, stop in runs(todo, most=lambda n_left: self._slabs.slab_planes()):
                yield start, self.work.prepared(start, stop, halo=self._halo, held=held)

        def write(slabs: list[Slab]) -> None:
            for slab in slabs:
                self._keep(slab)
                n_voxels = count_labels(slab)
                with self._finished_lock:
                    finished(n_voxels)

        if self._slabs.in_passes is not None:
            self.seconds = StageSeconds()
            one_after_the_other(read, self._compute, write, should_stop=should_stop, seconds=self.seconds)
            return
        how = {"workers": self.n_threads, "writers": self._n_writers}
        pipeline = Pipeline(read, self._compute, write, should_stop=should_stop, **how)
        self.seconds = pipeline.seconds
        pipeline.run()

    def _compute(self, item: tuple[int, PreparedSlab]) -> list[Slab]:
        seconds: dict[str, float] = {}
        slabs = self._slabs.classify(*item, seconds)
        with self._timings_lock:
            for name, value in seconds.items():
                self.timings[name] += value
        return slabs

    @property
    def slowest_stage(self) -> float:
        seconds = self.seconds
        return max(seconds.read, seconds.compute / self.n_threads, seconds.write / self._n_writers)


def count_labels(slab: Slab) -> np.ndarray:
    """Voxels per label value, (256,) int64."""
    return np.bincount(slab.values["labels"].ravel(), minlength=256)
