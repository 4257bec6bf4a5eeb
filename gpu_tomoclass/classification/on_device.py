"""A model made ready to classify slabs of planes on a device."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import NamedTuple

import numpy as np

from gpu_tomoclass.device import Array, Device, Planes, Stopwatch
from gpu_tomoclass.features import FeatureBlock, FeatureCache, FeatureEngine, block_values
from gpu_tomoclass.forest import DeviceForest, device_labels, predict_classes, predict_probabilities
from gpu_tomoclass.model import Model

MAX_SLAB = 128  # planes; beyond, launches cost nothing any more beside the work
FROM_DEVICE = "device to host"  # a part of the time, where arrays must be moved
MEMORY_SHARE = 0.8  # of a GPU's free memory; the rest is left to fragments and to what others need meanwhile


class _ThreadArrays(NamedTuple):
    """What one thread has of its own on the device."""

    engine: FeatureEngine
    forest: DeviceForest | None
    watch: Stopwatch


class _Held:
    """The arrays of a thread, as long as it lives; another thread may take them away while it does not use them."""

    def __init__(self) -> None:
        self.arrays: _ThreadArrays | None = None

    def release(self) -> None:
        if self.arrays is not None:
            with contextlib.suppress(Exception):  # the error that brought us here, once more
                self.arrays.engine.workspace.synchronize()  # copies may still read and write what is freed now
        self.arrays = None


class Classifier:
    """A model made ready to classify planes on a device: only the feature blocks that its forest uses are computed.

    Several threads may use it at once. They share the forest; each has all other arrays on the device, and on a GPU the
    stream of its launches and the pinned memory of its copies, for itself.

    Parameters
    ----------
    model : Model
    device : Device
    memory_limit : int, optional
        Bytes of a GPU's memory that slabs are chosen to fit; default what is free.
    """

    def __init__(self, model: Model, device: Device, *, memory_limit: int | None = None) -> None:
        self.model, self.device, self.memory_limit = model, device, memory_limit
        self.class_values = np.array([c.value for c in model.classes], dtype=np.uint8)
        used = model.forest.used_features()
        self.blocks: tuple[FeatureBlock, ...] = model.bank.subset([model.bank.channels[i] for i in used])
        channels = [i for block in self.blocks for i in range(block.start, block.stop)]
        self._forest = model.forest.restricted(channels)
        self.bytes_per_plane: int | None = None  # on the device, known after the first slab
        self._slab: int | None = None
        self._shared: DeviceForest | None = None  # of all threads
        self._preparing = threading.Lock()
        self._of_thread = threading.local()
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()  # of all threads

    def classify(
        self,
        planes: Planes,
        *,
        want_probabilities: bool = False,
        cache: FeatureCache | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Label values, of the first largest probability, and the probabilities if they are wanted.

        Parameters
        ----------
        planes : numpy.ndarray or sequence of numpy.ndarray
            (nz, ny, nx) float32, or nz times (ny, nx), prepared.
        want_probabilities : bool
        cache : FeatureCache, optional
            Of computed features; for a slab of one plane.
        timings : dict, optional
            Seconds are added per family, for the ``"forest"`` and for the copies to and from a GPU.

        Returns
        -------
        labels : numpy.ndarray
            (nz, ny, nx) uint8.
        probabilities : numpy.ndarray or None
            (n_classes, nz, ny, nx) float32.
        """
        mine = self._arrays_of_thread()
        engine, device, workspace = mine.engine, mine.engine.device, mine.engine.workspace
        n_classes, shape = len(self.class_values), (len(planes), *planes[0].shape)
        mine.watch.start()
        if cache is None:
            features = engine.compute(planes, watch=mine.watch)
        else:
            features = self._cached_features(engine, planes, cache=cache, timings=timings)
            mine.watch.start()  # what was computed has been added
        flat = features.reshape(self._forest.n_features, -1)
        probabilities: np.ndarray | None = None
        if mine.forest is None:
            probabilities = predict_probabilities(self._forest, flat)
            labels = predict_classes(probabilities, self.class_values)
            mine.watch.lap("forest")
        else:
            # On a GPU an array that stays; on a CPU one that is given away.
            kept = (n_classes, flat.shape[1])
            room = workspace.array("probabilities", kept, np.float32) if device.has_own_memory else None
            found = mine.forest.probabilities(flat, out=room)
            out = workspace.array("labels", (flat.shape[1],), np.uint8)
            values = workspace.constant("class values", lambda: self.class_values)
            device_labels(device, found, values=values, out=out)
            mine.watch.lap("forest")
            labels = workspace.on_host("labels", out)
            if want_probabilities:
                probabilities = workspace.on_host("probabilities", found)
            if device.has_own_memory:
                mine.watch.lap(FROM_DEVICE)
        workspace.synchronize()
        if timings is not None:
            mine.watch.add_to(timings)
        n_bytes = engine.n_bytes + (mine.forest.n_bytes if mine.forest is not None else 0)
        self.bytes_per_plane = n_bytes // shape[0]
        if probabilities is not None:
            probabilities = probabilities.reshape(n_classes, *shape)
            if device.has_own_memory:  # the next slab overwrites it
                probabilities = probabilities.copy()
        return labels.reshape(shape).copy(), probabilities if want_probabilities else None

    def slab_planes(self, *, n_threads: int = 1) -> int:
        """How many planes to classify at once: one on a CPU; on a GPU what its memory holds beside the forest and the
        slabs of the other threads, measured on the first plane."""
        if not self.device.has_own_memory or self.bytes_per_plane is None:
            return 1
        if self._slab is None:
            budget = MEMORY_SHARE * ((self.device.free_memory() or 0) + self.bytes_per_plane * n_threads)
            if self.memory_limit is not None:
                shared = 0 if self._shared is None else self._shared.shared_bytes
                budget = min(budget / MEMORY_SHARE, self.memory_limit - shared)
            self._slab = max(1, min(MAX_SLAB, int(budget) // (self.bytes_per_plane * n_threads)))
        return self._slab

    def limit_slab(self, n_planes: int) -> None:
        """Never again more planes at once than this: memory was not enough for more."""
        self._slab = n_planes if self._slab is None else min(self._slab, n_planes)

    def release(self) -> None:
        """Free what this thread holds on the device, whatever state it is in."""
        self._mine().release()
        self.device.release_memory()

    def release_others(self) -> None:
        """Free what other threads hold; none of them may be classifying."""
        mine = self._mine()
        with self._preparing:
            others = [held for held in self._held if held is not mine and held.arrays is not None]
        for held in others:
            held.release()
        if others:
            self.device.release_memory()

    def prepare(self) -> None:
        """Put the forest on the device now, not with the first slab; the threads share it."""
        with self._preparing:
            if self._shared is None and self.device.runs_kernels:
                shared = DeviceForest(self._forest, self.device)
                self.device.synchronize()  # other streams do not wait for this one
                self._shared = shared

    def _mine(self) -> _Held:
        if not hasattr(self._of_thread, "held"):
            self._of_thread.held = _Held()
            with self._preparing:
                self._held.add(self._of_thread.held)
        held: _Held = self._of_thread.held
        return held

    def _arrays_of_thread(self) -> _ThreadArrays:
        mine = self._mine()
        if mine.arrays is None:
            self.prepare()
            device = self.device.for_thread()
            forest = None if self._shared is None else self._shared.for_thread(device)
            mine.arrays = _ThreadArrays(FeatureEngine(device, self.blocks), forest, device.stopwatch())
        return mine.arrays

    def _cached_features(
        self, engine: FeatureEngine, planes: Planes, *, cache: FeatureCache, timings: dict[str, float] | None
    ) -> Array:
        features = np.empty((self._forest.n_features, len(planes), *planes[0].shape), dtype=np.float32)
        start = 0
        for _, channels in block_values(engine, planes[0], cache=cache, timings=timings):
            features[start : start + len(channels), 0] = channels
            start += len(channels)
        return engine.device.array(features)
