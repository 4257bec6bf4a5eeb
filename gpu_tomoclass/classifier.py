"""A model made ready to classify slabs of planes on a device."""

from __future__ import annotations

import threading
import time

import numpy as np

from gpu_tomoclass.accelerated.engine import FeatureEngine
from gpu_tomoclass.accelerated.forest import DeviceForest
from gpu_tomoclass.accelerated.labels import device_labels
from gpu_tomoclass.cache import FeatureCache, block_values
from gpu_tomoclass.device import Array, Device
from gpu_tomoclass.features import FeatureBlock
from gpu_tomoclass.forest.predict import predict_classes, predict_probabilities
from gpu_tomoclass.model import Model

MAX_SLAB = 128  # planes; beyond, launches cost nothing any more beside the work
MEMORY_SHARE = 0.8  # of a GPU's free memory; the rest is left to fragments and to what others need meanwhile


class Classifier:
    """A model made ready to classify planes on a device: only the feature blocks that its forest uses are computed.

    Several threads may use it at once; each has arrays of its own on the device.

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
        self._of_thread = threading.local()

    def classify(
        self,
        planes: np.ndarray,
        *,
        want_probabilities: bool = False,
        cache: FeatureCache | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Label values, of the first largest probability, and the probabilities if they are wanted.

        Parameters
        ----------
        planes : numpy.ndarray
            (nz, ny, nx) float32, prepared.
        want_probabilities : bool
        cache : FeatureCache, optional
            Of computed features; for a slab of one plane.
        timings : dict, optional
            Seconds are added per family and for the ``"forest"``.

        Returns
        -------
        labels : numpy.ndarray
            (nz, ny, nx) uint8.
        probabilities : numpy.ndarray or None
            (n_classes, nz, ny, nx) float32.
        """
        engine, forest = self._thread_engine()
        if cache is None:
            features = engine.compute(planes, timings=timings)
        else:
            features = self._cached_features(engine, planes, cache=cache, timings=timings)
        began = time.perf_counter()
        n_classes, shape = len(self.class_values), planes.shape
        flat = features.reshape(self._forest.n_features, planes.size)
        if isinstance(forest, DeviceForest):
            found = forest.probabilities(flat)
            out = engine.workspace.array("labels", (planes.size,), np.uint8)
            values = engine.workspace.constant("class values", lambda: self.class_values)
            device_labels(self.device, found, values=values, out=out)
            labels = self.device.numpy(out)
        else:
            found = predict_probabilities(self._forest, flat)
            labels = predict_classes(found, self.class_values)
        probabilities = self.device.numpy(found).reshape(n_classes, *shape) if want_probabilities else None
        if timings is not None:
            timings["forest"] = timings.get("forest", 0.0) + time.perf_counter() - began
        n_bytes = engine.n_bytes + (forest.n_bytes if isinstance(forest, DeviceForest) else 0)
        self.bytes_per_plane = n_bytes // shape[0] + 4 * n_classes * shape[1] * shape[2]
        return labels.reshape(shape).copy(), probabilities

    def slab_planes(self, *, n_threads: int = 1) -> int:
        """How many planes to classify at once: one on a CPU; on a GPU what its memory holds beside the slabs of the
        other threads, measured on the first plane."""
        if not self.device.has_own_memory or self.bytes_per_plane is None:
            return 1
        if self._slab is None:
            free = (self.device.free_memory() or 0) + self.bytes_per_plane * n_threads
            budget = MEMORY_SHARE * free if self.memory_limit is None else min(free, self.memory_limit)
            self._slab = max(1, min(MAX_SLAB, int(budget) // (self.bytes_per_plane * n_threads)))
        return self._slab

    def limit_slab(self, n_planes: int) -> None:
        """Never again more planes at once than this: memory was not enough for more."""
        self._slab = n_planes if self._slab is None else min(self._slab, n_planes)

    def release(self) -> None:
        """Free what this thread holds on the device."""
        self._of_thread.__dict__.clear()
        self.device.release_memory()

    def _thread_engine(self) -> tuple[FeatureEngine, DeviceForest | None]:
        if not hasattr(self._of_thread, "engine"):
            self._of_thread.engine = FeatureEngine(self.device, self.blocks)
            self._of_thread.forest = DeviceForest(self._forest, self.device) if self.device.runs_kernels else None
        return self._of_thread.engine, self._of_thread.forest

    def _cached_features(
        self, engine: FeatureEngine, planes: np.ndarray, *, cache: FeatureCache, timings: dict[str, float] | None
    ) -> Array:
        features = np.empty((self._forest.n_features, *planes.shape), dtype=np.float32)
        start = 0
        for _, channels in block_values(engine, planes[0], cache=cache, timings=timings):
            features[start : start + len(channels), 0] = channels
            start += len(channels)
        return self.device.array(features)
