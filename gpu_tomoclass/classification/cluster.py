"""Classification by the processes of a Dask cluster: on this machine, or on many.

The client (this process) holds the staging; workers read planes, classify them and write them into its stores. Chunks
are one plane thick and no plane is given to two workers, so writers never share a chunk. What a worker reports is
recorded once the client sees the same planes on disk. Planes of a worker that dies are given to another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import queue
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classification.cluster_worker import (
    Done,
    Job,
    classify_planes,
    close_run,
    code_digest,
    describe_worker,
    open_run,
)
from gpu_tomoclass.classification.run_folder import MODEL
from gpu_tomoclass.classification.slabs import planes_to_share, runs
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.classification.workers import Finished, PlaneWorkers, Work
from gpu_tomoclass.device import probe_device, usable_cores
from gpu_tomoclass.errors import ResourceError, TomoclassError, UsageError
from gpu_tomoclass.model import save_model
from gpu_tomoclass.volumes import Volume, ranges_text

PATIENCE = 60.0  # seconds that a scheduler, the first worker, or a worker in place of the last one may take to appear
SLABS_PER_THREAD = 2  # slabs per thread of the workers that are given out: one in work, one waiting
LOOK = 2.0  # seconds between questions which workers there are
POLL = 0.1  # seconds
FAILURES = 5  # workers of this machine that may die over the same planes
GPU_THREADS = 2  # of a worker with a GPU: one reads and writes while the other computes
VISIBLE = (0.1, 0.5, 2.0, 5.0, 10.0)  # seconds to wait for what another machine wrote; a network disk may lag


class Cluster:
    """Processes that classify; use it in a ``with`` block.

    Parameters
    ----------
    address : str
        ``"local:4"``: four processes on this machine, which share its cores, or with one GPU each; they end with the
        block. Or the address of a running scheduler, such as ``"tcp://node1:8786"``.
    device : {"auto", "cuda", "native", "numpy"}
        What every process computes on.
    threads : int, optional
        CPU threads of all processes on this machine together; default one per usable core. The workers of a running
        scheduler have their own.
    patience : float
        Seconds that the scheduler, its first worker, or a worker in place of the last one may take to appear.

    Attributes
    ----------
    device : str
        In the block: the name of the device that all workers have.
    description : str
        In the block, for people.
    notes : list of str

    Raises
    ------
    UsageError
        If the address is none, or does not fit threads or GPUs.
    ResourceError
        If Dask is missing, the scheduler or its workers do not answer, or workers have another version of this package
        or different devices.
    """

    def __init__(
        self, address: str, *, device: str = "auto", threads: int | None = None, patience: float = PATIENCE
    ) -> None:
        local = re.fullmatch(r"local:(\d+)", address)
        if local is None and not re.fullmatch(r"[a-z]+://[^\s/]+(:\d+)?/?", address):
            raise UsageError(
                f"{address!r} is no Dask cluster", do="give local:N for N processes here, or tcp://HOST:PORT"
            )
        self.n_local = int(local[1]) if local else None
        if self.n_local == 0:
            raise UsageError("a local cluster must have 1 or more processes, not 0", do="give local:1 or more")
        if threads is not None and (self.n_local is None or threads < self.n_local):
            why = (
                "the workers of a running cluster have their own" if local is None else f"{address} has more processes"
            )
            raise UsageError(f"{threads} threads do not fit: {why}", do="leave the number of threads out")
        self.address, self.device, self.patience = address, device, patience
        self.description = ""
        self.notes: list[str] = []
        self._threads = threads
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise ResourceError(
                f"Dask's package distributed cannot be imported ({error})", do="pip install 'gpu_tomoclass[dask]'"
            ) from error
        with self._stack:
            where = self.address if self.n_local is None else self._stack.enter_context(self._local_cluster())
            self.client = self._stack.enter_context(self._connected(where))
            self._check_workers()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def workers(self, work: Work, staging: Staging) -> ClusterWorkers:
        """For :func:`gpu_tomoclass.classification.classify_volume.classify`."""
        return ClusterWorkers(work, staging, self)

    def threads_per_worker(self) -> dict[str, int]:
        """The workers there are now, by address."""
        with self._answered():
            return dict(self.client.nthreads())

    def ask_all(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Run a function in every worker at once; what it returns, by address. Raises what the first one raises."""
        with self._answered():
            answers = self.client.run(function, *arguments, on_error="return")
        for address, answer in answers.items():
            if isinstance(answer, TomoclassError):
                raise answer
            if isinstance(answer, BaseException):
                raise ResourceError(
                    f"worker {address} cannot run gpu_tomoclass {__version__}: {type(answer).__name__}: {answer}",
                    do="install the same version everywhere and start the workers again",
                ) from answer
        return dict(answers)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """A scheduler that is gone is a sentence. The client would try to find it again, but it has lost all tasks."""
        if self.client.status != "running":
            raise self.lost()
        try:
            yield
        except (OSError, CancelledError) as error:
            raise self.lost() from error

    def lost(self) -> ResourceError:
        """The error for a scheduler that is gone."""
        return ResourceError(f"the scheduler {self.address} does not answer any more", do="start the cluster again")

    @contextlib.contextmanager
    def _local_cluster(self) -> Iterator[Any]:
        """N processes, each with its share of the cores, or a GPU; only this process can talk to them.

        Whoever can connect to a scheduler can run programs as its user, and everybody on this machine can connect, so
        connections are encrypted with a key that only these processes have, and there are no web pages.
        """
        import dask
        from distributed import Nanny, Scheduler, Security, SpecCluster

        assert self.n_local is not None
        self.device, gpus = probe_device(self.device, threads=self._threads)
        environments: list[dict[str, str]] = [{}] * self.n_local
        threads = max(1, (self._threads or usable_cores()) // self.n_local)
        if self.device == "cuda":
            environments = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]
            if len(environments) < self.n_local:
                raise UsageError(f"{self.address} needs {self.n_local} GPUs, {len(environments)} are visible")
            threads = GPU_THREADS
        try:
            security = Security.temporary()
        except ImportError as error:
            raise ResourceError(str(error), do="pip install 'gpu_tomoclass[dask]'") from error
        common = {
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": security,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        }
        no_pages: dict[str, list[str]] = {f"distributed.{who}.http.routes": [] for who in ("scheduler", "worker")}
        worker = {
            "nthreads": threads,
            "memory_limit": 0,  # Dask would pause a worker that has much memory; slabs.py knows better
            "preload": ["gpu_tomoclass.classification.cluster_worker"],
            "silence_logs": logging.ERROR,
            **common,
        }
        scheduler = {"port": 0, "allowed_failures": FAILURES, **common}
        try:
            with dask.config.set(no_pages):
                worker["config"] = copy.deepcopy(dask.config.config)  # for those that replace dead ones, too
                workers = {
                    i: {"cls": Nanny, "options": {**worker, "env": environments[i]}} for i in range(self.n_local)
                }
                cluster = SpecCluster(
                    workers=workers,
                    scheduler={"cls": Scheduler, "options": scheduler},
                    security=security,
                    silence_logs=logging.ERROR,
                )
        except (OSError, RuntimeError) as error:
            raise ResourceError(f"the processes of {self.address} cannot be started: {error}") from error
        with contextlib.closing(cluster):
            yield cluster

    @contextlib.contextmanager
    def _connected(self, where: Any) -> Iterator[Any]:
        import distributed

        if self.n_local is None:
            self._check_scheduler()
        with contextlib.closing(distributed.Client(where, timeout=self.patience, set_as_default=False)) as client:
            try:
                client.wait_for_workers(self.n_local or 1, timeout=self.patience)
            except OSError as error:
                raise ResourceError(
                    f"the scheduler {self.address} has had no worker for {self.patience:g} seconds",
                    do=f"start some with dask worker {self.address}",
                ) from error
            yield client

    def _check_scheduler(self) -> None:
        """See whether there is a Dask scheduler: a Client that finds none, or something else, leaves threads behind."""
        from distributed import Security
        from distributed.comm.core import connect

        async def greet() -> None:
            options = Security().get_connection_args("client")
            comm = await asyncio.wait_for(connect(self.address, timeout=self.patience, **options), self.patience)
            comm.abort()

        try:
            with ThreadPoolExecutor(1) as thread:  # asyncio wants one without an event loop; a notebook's has one
                thread.submit(asyncio.run, greet()).result()
        except OSError as error:
            raise ResourceError(
                f"no Dask scheduler answers at {self.address} within {self.patience:g} seconds",
                do="start one with dask scheduler, or name another",
            ) from error
        except (ValueError, TypeError, RuntimeError) as error:  # unknown kinds, keys that are missing
            raise UsageError(f"{self.address} cannot be used: {error}", do="give tcp://HOST:PORT") from error

    def _check_workers(self) -> None:
        """The same version and the same device everywhere."""
        found = self.ask_all(describe_worker, self.device)
        for address, answer in found.items():
            if answer["version"] != __version__ or answer["code"] != code_digest():
                other = "of other sources" if answer["version"] == __version__ else f"{answer['version']}"
                raise ResourceError(
                    f"worker {address} has gpu_tomoclass {other}, this is {__version__}",
                    do="install the same version everywhere and start the workers again",
                )
        devices = {answer["device"]: address for address, answer in found.items()}
        if len(devices) > 1:
            listed = ", ".join(f"{name} (worker {address})" for name, address in devices.items())
            raise ResourceError(
                f"the workers have different devices: {listed}", do="choose one that all have: --device"
            )
        (self.device,) = devices
        described = sorted({answer["description"] for answer in found.values()})
        self.description = f"{len(found)} worker{'s' if len(found) > 1 else ''}, {self.device}: {'; '.join(described)}"
        self.notes = list(dict.fromkeys(note for answer in found.values() for note in answer["notes"]))


class ClusterWorkers(PlaneWorkers):
    """Gives slabs to the workers, a few at a time, and records what they have stored."""

    def __init__(self, work: Work, staging: Staging, cluster: Cluster) -> None:
        super().__init__(work)
        self.staging, self._cluster = staging, cluster
        self._alive: set[str] = set()
        self._lost: set[str] = set()
        self._next_look = self._last_seen = time.monotonic()
        self._preferred: dict[str, int] = {}  # planes at once, by worker
        self.n_threads = 1

    def run(self, todo: np.ndarray, *, finished: Finished, should_stop: Callable[[], bool]) -> None:
        job = self._job()
        try:
            self._cluster.ask_all(open_run, job)
            self._give_out(job, todo, finished, should_stop)
        except Exception:  # not at a second Ctrl-C: a worker that is stuck would not answer
            self._close_run(job)
            raise
        self._close_run(job)

    def _close_run(self, job: Job) -> None:
        with contextlib.suppress(Exception):  # the run is over; a scheduler that is gone has been an error already
            self._look(time.monotonic())
            self._cluster.ask_all(close_run, job.key)

    def _job(self) -> Job:
        """The run for the workers; the model goes where they can read it."""
        work, staging = self.work, self.staging
        if work.volume.reading is None:
            raise UsageError("is not in a file that workers could open", where=work.volume.path)
        if isinstance(work.options.mask, Volume):
            raise UsageError("the mask is not a file that workers could open", do="give its path")
        folder = staging.folder.absolute()
        save_model(work.model, Path(folder, MODEL), overwrite=True)
        return Job(
            key=uuid.uuid4().hex,
            code=code_digest(),
            volume=os.path.abspath(work.volume.path),
            reading=work.volume.reading,
            fingerprint=staging.run["input"],
            folder=str(folder),
            owner=staging.owner,
            stores=staging.stores,
            model_hash=work.model.hash,
            options=work.options,
            scale=work.scale,
            first=work.first,
            device=self._cluster.device,
        )

    def _give_out(self, job: Job, todo: np.ndarray, finished: Finished, should_stop: Callable[[], bool]) -> None:
        """After an error or a stop nothing more is given out, and what is in work is waited for and recorded."""
        client = self._cluster.client
        in_work: dict[Any, tuple[int, int]] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        failure: Exception | None = None
        stopping = False
        waiting = runs(todo, most=self._slab_planes)
        try:
            while True:
                if (now := time.monotonic()) >= self._next_look:
                    self._look(now)
                while failure is None and len(in_work) < SLABS_PER_THREAD * self.n_threads:
                    stopping = stopping or should_stop()
                    run = None if stopping else next(waiting, None)
                    if run is None:
                        break
                    start, stop = run
                    future = client.submit(
                        classify_planes, job, start, stop, key=f"planes-{start}-{stop}-{job.key}", pure=False
                    )
                    in_work[future] = start, stop
                    future.add_done_callback(ended.put)
                if not in_work:
                    break
                try:
                    future = ended.get(timeout=POLL)
                except queue.Empty:
                    continue
                try:
                    done = self._result(future, *in_work[future])
                    if done is None:  # its worker died before the result was fetched: the planes are done again
                        future.add_done_callback(ended.put)
                        continue
                    self._record(done, finished)
                except Exception as error:
                    failure = failure or error
                del in_work[future]
        finally:
            if in_work:
                with contextlib.suppress(Exception):
                    client.cancel(list(in_work), force=True)
        if failure is not None:
            raise failure

    def _slab_planes(self, n_left: int) -> int:
        fixed, n_slabs = self.work.options.slab_planes, SLABS_PER_THREAD * self.n_threads
        return planes_to_share(n_left, preferred=self._preferred.values(), n_slabs=n_slabs, fixed=fixed)

    def _result(self, future: Any, start: int, stop: int) -> Done | None:
        from distributed import KilledWorker

        if future.cancelled() or self._cluster.client.status != "running":
            raise self._cluster.lost()
        try:
            found: Done = future.result(timeout=LOOK)
        except KilledWorker as error:
            planes = ranges_text(range(self.work.first + start, self.work.first + stop))
            raise ResourceError(
                f"every worker that was given planes {planes} died; the last was {error.last_worker.address}",
                do="see its log: too little memory is the usual cause",
            ) from error
        except OSError:
            if future.status == "error":  # the task's own
                raise
            return None
        return found

    def _record(self, done: Done, finished: Finished) -> None:
        for pause in (*VISIBLE, None):
            if self.staging.adopt(done.start, done.crc):
                break
            if pause is None:
                raise ResourceError(
                    f"what worker {done.worker} wrote is not there, or is not what it says it wrote",
                    where=self.staging.folder,
                    do="see that all workers write to the same file system",
                )
            time.sleep(pause)
        self.staging.record(done.start, done.crc, notes=done.notes)
        if done.missing:
            self.work.volume.mark_missing(done.missing)  # the worker's volume found out, this one cannot
        self._preferred[done.worker] = done.slab_planes
        self.notes += [note for note in done.worker_notes if note not in self.notes]
        for name, value in done.timings.items():
            self.timings[name] += value
        self.seconds.add(done.seconds)
        finished(np.array(done.n_voxels, dtype=np.int64))

    def _look(self, now: float) -> None:
        """Update the list of workers; raise ResourceError if there have been none for long."""
        self._next_look = now + LOOK
        threads = self._cluster.threads_per_worker()
        if lost := self._alive - threads.keys():
            self._lost |= lost
            self.notes[:] = [note for note in self.notes if not note.endswith("died; others took its planes")]
            self.notes.append(f"worker {', '.join(sorted(self._lost))} died; others took its planes")
            for address in lost:
                self._preferred.pop(address, None)
        self._alive = set(threads)
        if threads:
            self._last_seen, self.n_threads = now, sum(threads.values())
        elif now - self._last_seen > self._cluster.patience:
            raise ResourceError(
                f"the scheduler {self._cluster.address} has had no worker for {self._cluster.patience:g} seconds",
                do="start some, and repeat the command",
            )

    @property
    def slowest_stage(self) -> float:
        """Every thread of a worker goes through all three."""
        return (self.seconds.read + self.seconds.compute + self.seconds.write) / self.n_threads
