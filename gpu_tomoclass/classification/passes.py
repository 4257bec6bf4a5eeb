"""Classify planes whose features no memory holds: some families after the other, in passes over the plane.

Many families look at the whole plane (its extremes, its mean response to stripes), so it cannot be cut into tiles. But
of a feature the forest asks only which of its thresholds lie below it: a byte. So a pass computes as many blocks of
channels as memory holds, keeps those bytes in a file, and forgets the channels. When all have been computed, the trees
are walked for some pixels after the other. The arithmetic is that of the run in one pass, and so is every bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import Device, DryDevice, Planes
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import FeatureBlock, FeatureEngine, Place
from gpu_tomoclass.forest import DeviceForest, device_labels
from gpu_tomoclass.outputs import free_bytes, size_text, writing

PIXELS = 1 << 18  # that are walked down the trees at a time; a whole number of all tiles


class Unit(NamedTuple):
    """A block of channels, and the forest's number of the first of them."""

    block: FeatureBlock
    first: int

    @property
    def last(self) -> int:
        return self.first + len(self.block.channels)


@dataclass(frozen=True)
class Passes:
    """Blocks that are computed together, one group after the other.

    Attributes
    ----------
    groups : tuple of tuple of Unit
        In each, channels follow each other or are not asked for by the forest.
    n_bytes : int
        Memory that computing takes at most, beside the prepared planes, the forest itself and what is made.
    scratch_bytes : int
        On disk, for one plane.
    """

    groups: tuple[tuple[Unit, ...], ...]
    n_bytes: int
    scratch_bytes: int


class _Costs:
    """Bytes of passes over a plane, from a dry run of the code that allocates them."""

    def __init__(self, classifier: Classifier, shape: tuple[int, int], place: Place) -> None:
        self._place, self._shape = place, shape
        self._planes = [np.broadcast_to(np.float32(0), shape)] * place.n_planes
        self._dry = DryDevice(classifier.device.name, threads=classifier.device.threads)
        self._forest = DeviceForest(classifier.forest, self._dry)

    def of(self, units: Sequence[Unit]) -> int:
        """While they are computed, and reduced to what the trees ask."""
        before = self._dry.n_bytes
        blocks = [unit.block for unit in units]
        FeatureEngine(self._dry, blocks).compute(self._planes, place=self._place, blocks=blocks)
        by_reference = sum(b.reference_bytes * self._n_pixels for b in blocks if not b.has_kernel)
        return (
            self._dry.n_bytes
            - before
            + by_reference
            + sum(self._of_pixels(unit, min(PIXELS, self._n_pixels)) for unit in units)
        )

    def walk(self) -> int:
        """While the trees are walked."""
        before, n = self._dry.n_bytes, min(PIXELS, self._n_pixels)
        self._forest.probabilities_of_parts((), n)
        # A part while it is read, and the labels.
        return self._dry.n_bytes - before + n * self._forest.forest.n_features

    def scratch(self, unit: Unit) -> int:
        """On disk."""
        full, rest = divmod(self._n_pixels, PIXELS)
        return full * self._part(unit, PIXELS) + (self._part(unit, rest) if rest else 0)

    @property
    def _n_pixels(self) -> int:
        return self._shape[0] * self._shape[1]

    def _part(self, unit: Unit, n_pixels: int) -> int:
        shape, dtype = self._forest.part_shape(unit.first, unit.last, n_pixels)
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def _of_pixels(self, unit: Unit, n_pixels: int) -> int:
        return 4 * len(unit.block.channels) * n_pixels + self._part(unit, n_pixels)


def plan_passes(classifier: Classifier, shape: tuple[int, int], *, place: Place, room: int) -> Passes | int:
    """Passes of at most ``room`` bytes; if that is too little for one of the smallest blocks, how many it needs.

    Parameters
    ----------
    classifier : Classifier
        On a CPU that runs kernels, with all its threads.
    shape : (int, int)
        Of a plane, (ny, nx).
    place : Place
        Of one wanted plane with its halo.
    room : int
        Beside the prepared planes, the forest itself and what is made.
    """
    costs = _Costs(classifier, shape, place)
    units, needed = [], costs.walk()
    for whole in units_of(classifier):
        of_whole = costs.of([whole])
        smaller = [whole] if of_whole <= room else _parts(classifier, whole)
        needed = max(needed, of_whole if smaller == [whole] else max(costs.of([unit]) for unit in smaller))
        units += smaller
    if needed > room:
        return needed
    groups: list[tuple[Unit, ...]] = []
    for unit in units:
        longer = (*groups[-1], unit) if groups else (unit,)
        cost = costs.of(longer)
        if groups and cost <= room:
            groups[-1] = longer
            needed = max(needed, cost)
        else:
            groups.append((unit,))
    return Passes(tuple(groups), needed, sum(costs.scratch(unit) for unit in units))


def units_of(classifier: Classifier) -> list[Unit]:
    """The blocks that the forest uses."""
    units, first = [], 0
    for block in classifier.blocks:
        units.append(Unit(block, first))
        first += len(block.channels)
    return units


def _parts(classifier: Classifier, whole: Unit) -> list[Unit]:
    """The parts of a block of which the forest asks for a channel."""
    used = classifier.forest.used_features()
    units = [Unit(part, whole.first + part.start - whole.block.start) for part in whole.block.parts]
    return [unit for unit in units if np.any((used >= unit.first) & (used < unit.last))]


class _Kept(NamedTuple):
    """Where in the file a part of some pixels is."""

    unit: Unit
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class InPasses:
    """Classifies one plane after the other, each in passes.

    Parameters
    ----------
    classifier : Classifier
    passes : Passes
    folder : path, optional
        Of the file, which has no name and is gone however the process ends; default the system's for such files.
    """

    def __init__(self, classifier: Classifier, passes: Passes, *, folder: str | PathLike[str] | None = None) -> None:
        self._classifier, self.passes = classifier, passes
        self._folder = tempfile.gettempdir() if folder is None else folder

    @property
    def device(self) -> Device:
        return self._classifier.device

    def check_disk(self) -> None:
        """A ResourceError unless the disk holds what is kept of a plane."""
        needed, free = self.passes.scratch_bytes, free_bytes(self._folder)
        if free is not None and needed > free:
            raise ResourceError(
                f"a plane is classified in {len(self.passes.groups)} passes, as memory does not hold its features;"
                f" between them {size_text(needed)} are kept on disk, {size_text(free)} are free",
                where=self._folder,
                do="make room, or raise --memory-limit",
            )

    def bands(
        self, planes: Planes, *, place: Place, want_probabilities: bool, timings: MutableMapping[str, float]
    ) -> Iterator[tuple[slice, npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
        """The results of :meth:`~gpu_tomoclass.classification.on_device.Classifier.classify` for some pixels of the
        products plane after the other.

        Yields
        ------
        pixels : slice
            Of the plane's (ny * nx).
        labels : numpy.ndarray
            (n,) uint8; the next step overwrites them.
        probabilities : numpy.ndarray
            (n_classes, n) float32; only their order counts unless they are wanted. The next step overwrites them.
        """
        self.check_disk()
        classifier, device = self._classifier, self.device
        classifier.prepare()
        shared = classifier.shared_forest
        assert shared is not None  # a CPU that runs kernels has one
        forest, watch = shared.for_thread(device), device.stopwatch()
        n_pixels = planes[0].size
        with writing(self._folder), tempfile.TemporaryFile(dir=self._folder, prefix="passes.") as file:
            kept: dict[int, list[_Kept]] = {first: [] for first in range(0, n_pixels, PIXELS)}
            for units in self.passes.groups:
                watch.start()
                blocks = [unit.block for unit in units]
                engine = FeatureEngine(device, blocks)  # a new one: what the last pass held is freed
                flat = engine.compute(planes, place=place, blocks=blocks, watch=watch).reshape(-1, n_pixels)
                for first, of_pixels in kept.items():
                    self._keep(file, flat, units, forest=forest, first=first, kept=of_pixels)
                watch.lap("forest")
                watch.add_to(timings)
                del flat, engine  # before the next pass asks for memory
            values = device.array(classifier.class_values)
            for first, of_pixels in kept.items():
                watch.start()
                pixels = slice(first, min(first + PIXELS, n_pixels))
                n = pixels.stop - first
                parts = ((k.unit.first, k.unit.last, _read(file, k)) for k in of_pixels)
                found = forest.probabilities_of_parts(parts, n, want_labels=not want_probabilities)
                labels = device.empty((n,), np.uint8)
                device_labels(device, found, values=values, out=labels)
                watch.lap("forest")
                watch.add_to(timings)
                yield pixels, labels, found

    def _keep(
        self,
        file: IO[bytes],
        flat: npt.NDArray[np.float32],
        units: Sequence[Unit],
        *,
        forest: DeviceForest,
        first: int,
        kept: list[_Kept],
    ) -> None:
        start = 0
        for unit in units:
            stop = start + unit.last - unit.first
            part = forest.part(np.ascontiguousarray(flat[start:stop, first : first + PIXELS]), unit.first)
            if part.size:
                kept.append(_Kept(unit, file.tell(), part.shape, part.dtype))
                file.write(part.data)
            start = stop


def _read(file: IO[bytes], kept: _Kept) -> npt.NDArray[Any]:
    file.seek(kept.offset)
    n_bytes = int(np.prod(kept.shape)) * kept.dtype.itemsize
    return np.frombuffer(file.read(n_bytes), kept.dtype).reshape(kept.shape)
