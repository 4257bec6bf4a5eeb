"""A model made ready to classify slabs of planes on a device."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import NamedTuple

import numpy as np

from gpu_tomoclass.classification.slabs import SlabMemory
from gpu_tomoclass.device import Array, Device, Planes, Stopwatch
from gpu_tomoclass.features import (
    Aspect,
    FeatureBlock,
    FeatureCache,
    FeatureEngine,
    Place,
    PreparedPlane,
    PreparedSlab,
    block_values,
    halo,
)
from gpu_tomoclass.forest import (
    DeviceForest,
    NvForestPredictor,
    device_bytes,
    device_labels,
    predict_classes,
    predict_probabilities,
    probability_bytes,
)
from gpu_tomoclass.model import Model

SECOND_PIXELS = 2**18  # that nvForest is given at once: their features take twice 4 bytes per channel
FROM_DEVICE = "device to host"  # a part of the time, where arrays must be moved


def used_blocks(model: Model) -> tuple[FeatureBlock, ...]:
    """The blocks of the model's bank that its forest asks for."""
    return model.bank.subset([model.bank.channels[i] for i in model.forest.used_features()])


class _ThreadArrays(NamedTuple):
    """Arrays and stream that one thread has for itself on the device."""

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
    forest_engine : {"kernels", "nvforest"}
        Who walks the trees: our own kernels, or nvForest, which is given the features on the host.

    Attributes
    ----------
    blocks : tuple of FeatureBlock
        What is computed.
    memory : SlabMemory or None
        What a thread takes on the device, measured on the latest slab.
    """

    def __init__(self, model: Model, device: Device, *, forest_engine: str = "kernels") -> None:
        self.model, self.device, self._engine = model, device, forest_engine
        self.class_values = np.array([c.value for c in model.classes], dtype=np.uint8)
        self.blocks = used_blocks(model)
        channels = [i for block in self.blocks for i in range(block.start, block.stop)]
        self.forest = model.forest.restricted(channels)
        self.memory: SlabMemory | None = None
        self._shared: DeviceForest | None = None  # one for all threads
        self._second: NvForestPredictor | None = None  # in its place; one thread at a time
        self._asking = threading.Lock()
        self._preparing = threading.Lock()
        self._of_thread = threading.local()
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()  # what each thread holds

    @property
    def shared_forest(self) -> DeviceForest | None:
        """The forest on the device, after :meth:`prepare`; None where the device runs no kernels."""
        return self._shared

    def halo(self, aspect: Aspect) -> int:
        """Planes on each side of a plane that its features look at."""
        return halo(self.blocks, aspect)

    def classify(
        self,
        planes: Planes,
        *,
        place: Place | None = None,
        want_probabilities: bool = False,
        as_bytes: bool = False,
        cache: FeatureCache | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Label values, of the first largest probability, and the probabilities if they are wanted.

        Parameters
        ----------
        planes : numpy.ndarray or sequence of numpy.ndarray
            (nz, ny, nx) float32, or nz times (ny, nx), prepared.
        place : Place, optional
            Where they lie in the volume, and which of them are wanted; default: they are the volume.
        want_probabilities : bool
        as_bytes : bool
            Make bytes of them where they are, so that a quarter is copied: 255 times each, rounded.
        cache : FeatureCache, optional
            Of computed features; for one wanted plane.
        timings : dict, optional
            Seconds are added per family, for the ``"forest"`` and for the copies to and from a GPU.

        Returns
        -------
        labels : numpy.ndarray
            (planes that are wanted, ny, nx) uint8.
        probabilities : numpy.ndarray or None
            (n_classes, planes that are wanted, ny, nx) float32, or uint8.
        """
        place = Place.whole(len(planes)) if place is None else place
        mine = self._arrays_of_thread()
        engine, device, workspace = mine.engine, mine.engine.device, mine.engine.workspace
        n_classes, shape = len(self.class_values), (place.n_wanted, *planes[0].shape)
        mine.watch.start()
        take = mine.forest.take if cache is None and mine.forest is not None and mine.forest.takes_parts else None
        if cache is None:
            features = engine.compute(planes, place=place, watch=mine.watch, take=take)
        else:
            features = self._cached_features(engine, planes, place, cache=cache, timings=timings)
            mine.watch.start()  # what was computed has been added
        flat = features.reshape(self.forest.n_features, -1) if take is None else None
        probabilities: np.ndarray | None = None
        if mine.forest is None:
            assert flat is not None  # nothing is taken without a forest on the device
            probabilities = self._on_host(device, flat)
            labels = predict_classes(probabilities, self.class_values)
            probabilities = probability_bytes(probabilities) if as_bytes else probabilities
            mine.watch.lap("forest")
        else:
            n_pixels = int(np.prod(shape))
            found, out = self._products(mine, mine.forest, flat, n_pixels, want_labels=not want_probabilities)
            if want_probabilities and as_bytes:
                found = self._as_bytes(mine, found)
            mine.watch.lap("forest")
            labels = workspace.on_host("labels", out)
            if want_probabilities:
                probabilities = workspace.on_host("probability bytes" if as_bytes else "probabilities", found)
            if device.has_own_memory:
                mine.watch.lap(FROM_DEVICE)
        workspace.synchronize()
        if timings is not None:
            mine.watch.add_to(timings)
        self._measure(mine, features, n_planes=len(planes), n_wanted=shape[0])
        if probabilities is not None:
            probabilities = probabilities.reshape(n_classes, *shape)
            if device.has_own_memory:  # the next slab overwrites it
                probabilities = probabilities.copy()
        return labels.reshape(shape).copy(), probabilities if want_probabilities else None

    def _on_host(self, device: Device, flat: Array) -> np.ndarray:
        """Probabilities of features by NumPy, or by nvForest."""
        if self._second is None:
            return predict_probabilities(self.forest, flat)
        starts = range(0, flat.shape[1], SECOND_PIXELS)
        with self._asking:
            parts = [self._second.probabilities(device.numpy(flat[:, i : i + SECOND_PIXELS])) for i in starts]
        return np.concatenate(parts, axis=1)

    def classify_on_device(self, planes: Array, *, place: Place, labels: Array, probabilities: Array | None) -> None:
        """Classify planes that are on the device, for results that stay there.

        Parameters
        ----------
        planes : array on the device
            (nz, ny, nx) float32, prepared; what makes them has been waited for.
        place : Place
            See :meth:`classify`.
        labels : array on the device
            (planes that are wanted, ny, nx) uint8, to be filled.
        probabilities : array on the device, optional
            (n_classes, planes that are wanted, ny, nx) float32, to be filled.
        """
        mine = self._arrays_of_thread()
        if mine.forest is None:
            raise ValueError(f"the {self.device.name} device keeps no arrays of its own")
        device, take = mine.engine.device, mine.forest.take if mine.forest.takes_parts else None
        features = mine.engine.compute(planes, place=place, take=take)
        flat = features.reshape(self.forest.n_features, -1) if take is None else None
        found, out = self._products(mine, mine.forest, flat, int(labels.size), want_labels=probabilities is None)
        device.copy(out.reshape(labels.shape), labels)
        if probabilities is not None:
            device.copy(found.reshape(probabilities.shape), probabilities)
        mine.engine.workspace.synchronize()
        self._measure(mine, features, n_planes=len(planes), n_wanted=place.n_wanted)

    def _products(
        self, mine: _ThreadArrays, forest: DeviceForest, flat: Array | None, n_pixels: int, *, want_labels: bool
    ) -> tuple[Array, Array]:
        """Probabilities (n_classes, n_pixels) and labels (n_pixels,) of features (n_features, n_pixels).

        Without features, of those that the forest has taken. With ``want_labels`` the labels alone are wanted.
        """
        device, workspace = mine.engine.device, mine.engine.workspace
        # GPU: reuse a buffer. CPU: allocate; the caller keeps the array.
        kept = (len(self.class_values), n_pixels)
        reuse = flat is None or device.has_own_memory
        room = workspace.array("probabilities", kept, np.float32) if reuse else None
        if flat is None:
            found = forest.probabilities_of_taken(n_pixels, out=room, want_labels=want_labels)
        else:
            found = forest.probabilities(flat, out=room, want_labels=want_labels)
        out = workspace.array("labels", (n_pixels,), np.uint8)
        values = workspace.constant("class values", lambda: self.class_values)
        device_labels(device, found, values=values, out=out)
        return found, out

    @staticmethod
    def _as_bytes(mine: _ThreadArrays, probabilities: Array) -> Array:
        device = mine.engine.device
        if device.has_own_memory:
            found = mine.engine.workspace.array("probability bytes", probabilities.shape, np.uint8)
        else:  # the caller keeps them
            found = device.empty(probabilities.shape, np.uint8)
        device_bytes(device, probabilities, out=found)
        return found

    def _measure(self, mine: _ThreadArrays, features: Array, *, n_planes: int, n_wanted: int) -> None:
        n_bytes = mine.engine.n_bytes + (mine.forest.n_bytes if mine.forest is not None else 0)
        # What is held for the halo is no more for a larger slab; planes of the slab itself are the least part.
        of_halo = (n_planes - n_wanted) * (n_bytes - features.nbytes) // n_planes
        shared = 0 if self._shared is None else self._shared.shared_bytes
        self.memory = SlabMemory(shared, of_halo, (n_bytes - of_halo) // n_wanted)

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
            if self._engine == "nvforest":
                if self._second is None:
                    self._second = NvForestPredictor.beside(self.device, self.forest)
            elif self._shared is None and self.device.runs_kernels:
                shared = DeviceForest(self.forest, self.device)
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
        self,
        engine: FeatureEngine,
        planes: Planes,
        place: Place,
        *,
        cache: FeatureCache,
        timings: dict[str, float] | None,
    ) -> Array:
        features = np.empty((self.forest.n_features, 1, *planes[0].shape), dtype=np.float32)
        slab = PreparedSlab([PreparedPlane(image) for image in planes], place)
        start = 0
        for _, channels in block_values(engine, slab, cache=cache, timings=timings):
            features[start : start + len(channels), 0] = channels
            start += len(channels)
        return engine.device.array(features)
