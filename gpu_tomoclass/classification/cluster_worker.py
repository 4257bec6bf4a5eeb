"""Tasks of a process of a Dask cluster: open a run once, classify planes of it, write them to the staging.

The functions here are called by name from cluster.py in another process, perhaps on another machine. Nothing but plain
data travels; volume, model and outputs are files that every process sees under the same name.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classification.lock import LOCK
from gpu_tomoclass.classification.needs import ProcessMemory
from gpu_tomoclass.classification.on_device import used_blocks
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.pipeline import StageSeconds
from gpu_tomoclass.classification.product_stores import open_store, store_slab
from gpu_tomoclass.classification.run_folder import MODEL
from gpu_tomoclass.classification.slabs import side_by_side, threads_within
from gpu_tomoclass.classification.workers import Work, count_labels
from gpu_tomoclass.device import Device, choose_device, kernels_folder
from gpu_tomoclass.errors import DataError, ModelError, ResourceError, TomoclassError, UsageError
from gpu_tomoclass.features import IntensityScale
from gpu_tomoclass.model import load_model
from gpu_tomoclass.outputs import writing
from gpu_tomoclass.volumes import open_volume

KEPT = 2  # runs that a process has open; a third one closes the oldest
SAME_FILES = "give paths in a file system that all workers see under the same name"


@dataclass(frozen=True)
class Job:
    """A run, as a worker needs to know it.

    Attributes
    ----------
    key : str
        Of this run of this client; no two are equal.
    code : str
        :func:`code_digest` of the client.
    volume : str
        Absolute path.
    reading : dict
        What to open the volume with.
    fingerprint : dict
        Of the volume as the client sees it.
    folder : str
        Of the staging, absolute; the model is in it.
    owner : str
        What the staging's lock says while the run goes on.
    stores : dict
        Of each product the name of its store in the folder.
    model_hash : str
    options, scale, first
        See :class:`gpu_tomoclass.classification.workers.Work`.
    device : str
        Name of the device to compute on.
    """

    key: str
    code: str
    volume: str
    reading: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    folder: str
    owner: str
    stores: dict[str, str]
    model_hash: str
    options: RunOptions
    scale: IntensityScale
    first: int
    device: str


@dataclass(frozen=True)
class Done:
    """Planes that a worker has stored.

    Attributes
    ----------
    start : int
    crc : dict
        Per product the checksum of each plane.
    n_voxels : list of int
        Per label value, 256.
    notes : list of str
        On these planes.
    missing : list of int
        Planes of the volume that could not be read.
    timings, seconds
        See :class:`gpu_tomoclass.classification.workers.PlaneWorkers`.
    slab_planes : int
        How many planes this worker would like at once.
    worker : str
        Its address.
    worker_notes : list of str
        What it had to do for lack of memory.
    """

    start: int
    crc: Mapping[str, list[int]]
    n_voxels: list[int]
    notes: list[str]
    missing: list[int]
    timings: Mapping[str, float]
    seconds: StageSeconds
    slab_planes: int
    worker: str
    worker_notes: list[str]


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker of ``--dask local:N`` starts.

    A terminal sends Ctrl-C, and some schedulers SIGTERM, to every process of a job. The client decides what that means:
    it lets the workers finish the planes in work, then ends them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


async def describe_worker(device_name: str, dask_worker: Any) -> dict[str, Any]:
    """Describe this worker to a client: version, digest of the code, the device it would take, threads."""
    device = await asyncio.to_thread(_device, device_name, dask_worker.state.nthreads)
    return {
        "version": __version__,
        "code": code_digest(),
        "device": device.name,
        "description": device.description,
        "notes": list(device.notes),
    }


async def open_run(job: Job, dask_worker: Any) -> None:
    """Open a run, so that what cannot be opened is an error before any plane is classified."""
    await asyncio.to_thread(_open, job, dask_worker)


def classify_planes(job: Job, start: int, stop: int) -> Done:
    """Read, classify and store planes of the output; the task of a cluster."""
    from distributed import get_worker

    worker = get_worker()
    opened = _open(job, worker)
    try:
        return opened.classify(start, stop, worker.address)
    except TomoclassError as error:
        error.add_note(f"met by {_name(worker)}")
        raise


def close_run(key: str) -> None:
    """Let go of a run that has ended: its files, its memory on the device."""
    with _opening:
        opened = _runs.pop(key, None)
    if opened is not None:
        device = opened.slabs.classifier.device
        del opened  # and with it the arrays of all threads
        device.release_memory()


class _Opened:
    """A run in this process: its volume, model and stores, one engine per thread."""

    def __init__(self, job: Job, n_threads: int) -> None:
        self.job = job
        volume = open_volume(job.volume, **job.reading)
        found = volume.fingerprint()
        if found != job.fingerprint:
            different = [name for name in found if found[name] != job.fingerprint.get(name)]
            raise DataError(
                f"is another file here than where the run was started: {', '.join(different)} differ",
                where=job.volume,
                do=SAME_FILES,
            )
        model = load_model(Path(job.folder, MODEL))
        if model.hash != job.model_hash:
            raise ModelError("is another model here than where the run was started", where=Path(job.folder, MODEL))
        self.work = Work(volume, model, job.options, scale=job.scale, first=job.first)
        device = _device(job.device, n_threads)
        limit = job.options.memory_limit
        if limit is not None and not device.has_own_memory:
            needed = ProcessMemory(volume, model, device, job.options.products)
            n_threads = threads_within(limit, needed, device=device, blocks=used_blocks(model))
        thread_device, most = side_by_side(device, used_blocks(model))
        n_threads = min(n_threads, most) if most == 1 else n_threads
        self.slabs = self.work.slab_classifier(thread_device, n_threads=n_threads)
        self._stores = {name: open_store(job.folder, store) for name, store in job.stores.items()}
        self._reading = threading.Lock()  # a volume is read by one thread at a time

    def classify(self, start: int, stop: int, worker: str) -> Done:
        seconds = StageSeconds()
        with self._reading:
            began = time.perf_counter()
            planes = self.work.prepared(start, stop, halo=self.slabs.halo(self.work.aspect))
            seconds.read = time.perf_counter() - began
        began = time.perf_counter()
        timings: dict[str, float] = {}
        slabs = self.slabs.classify(start, planes, timings)
        seconds.compute = time.perf_counter() - began
        began = time.perf_counter()
        crc: dict[str, list[int]] = {name: [] for name in self.job.stores}
        for slab in slabs:
            self._check_owner()
            with writing(self.job.folder):
                for name, values in store_slab(self._stores, slab).items():
                    crc[name] += values
        seconds.write = time.perf_counter() - began
        missing = self.work.volume.missing_planes.intersection(range(self.job.first + start, self.job.first + stop))
        return Done(
            start=start,
            crc=crc,
            n_voxels=np.sum([count_labels(slab) for slab in slabs], axis=0).tolist(),
            notes=[note for slab in slabs for note in slab.notes],
            missing=sorted(missing),
            timings=timings,
            seconds=seconds,
            slab_planes=self.slabs.slab_planes(),
            worker=worker,
            worker_notes=list(self.slabs.notes),
        )

    def _check_owner(self) -> None:
        """Write nothing for a client that has ended meanwhile: another run may have taken the place of its own."""
        file = Path(self.job.folder, LOCK)
        with writing(self.job.folder):
            owner = file.read_text(encoding="utf-8")
        if owner != self.job.owner:
            raise ResourceError("belongs to another run now", where=self.job.folder)


_runs: OrderedDict[str, _Opened] = OrderedDict()
_opening = threading.RLock()


def _open(job: Job, worker: Any) -> _Opened:
    """The run in this process; opened by the first thread that asks for it."""
    with _opening:
        if job.key not in _runs:
            try:
                check_code(job.code)
                opened = _Opened(job, worker.state.nthreads)
            except TomoclassError as error:
                kind, do = type(error), error.do
                if isinstance(error, UsageError):  # it exists for the client
                    kind, do = ResourceError, SAME_FILES
                raise kind(f"{error.what} (found by {_name(worker)})", where=error.where, do=do) from error
            while len(_runs) >= KEPT:
                _runs.popitem(last=False)
            _runs[job.key] = opened
        return _runs[job.key]


def _name(worker: Any) -> str:
    return f"worker {worker.address} on {socket.gethostname()}"


@cache
def _device(name: str, n_threads: int) -> Device:
    """One per process, so that kernels are loaded once; a GPU is the first that CUDA_VISIBLE_DEVICES names."""
    return choose_device(name, threads=n_threads)


def check_code(expected: str) -> None:
    """Raise ResourceError unless the code here is that of the client."""
    if code_digest() != expected:
        raise ResourceError(
            f"the code of gpu_tomoclass {__version__} is not that of the client",
            do="install the same version everywhere and start the workers again",
        )


@cache
def code_digest() -> str:
    """BLAKE2b of the sources of this package: two checkouts of one version may differ."""
    digest = hashlib.blake2b(digest_size=16)
    package = Path(__file__).parents[1]
    for folder, pattern in ((package, "*.py"), (package / "device", "*.h"), (kernels_folder(), "*.cu")):
        for file in sorted(folder.rglob(pattern)):
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
