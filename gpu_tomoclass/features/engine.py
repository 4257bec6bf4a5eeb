"""Feature blocks of a slab on any device: through kernels, or through the reference where there are none."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpu_tomoclass.device import Array, Device, LaunchRecord, Planes, Stopwatch, Workspace
from gpu_tomoclass.errors import StoppedError
from gpu_tomoclass.features.accelerated.smoothed import smoothed_planes
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource, uploaded_slab
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.block import FeatureBlock, halo, row_of, volume_source
from gpu_tomoclass.features.family import Family
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.source import FeatureSource
from gpu_tomoclass.features.reference.volume_source import Aspect, VolumeSource

TO_DEVICE = "host to device"  # a lap, where arrays must be moved
Take = Callable[[Array, Sequence[int]], None]  # channels (n, n_pixels), and their numbers, rising
Accelerated = Callable[[Any, Sequence[BlockRequest]], None]  # the source: of planes, or of a slab with its halo


class FeatureEngine:
    """Computes the same blocks of slab after slab; keeps its arrays on the device.

    Not safe to share between threads: one engine per thread.

    Parameters
    ----------
    device : Device
    blocks : sequence of FeatureBlock
        Of one bank, in the order in which their channels are wanted.
    """

    def __init__(self, device: Device, blocks: Sequence[FeatureBlock]) -> None:
        self.device = device
        self.blocks = tuple(blocks)
        self.n_channels = sum(len(block.channels) for block in self.blocks)
        self.workspace = Workspace(device)
        self._recorded: _Recorded | None = None
        self._halos: dict[Aspect, int] = {}

    def compute(
        self,
        planes: Planes,
        *,
        place: Place | None = None,
        blocks: Sequence[FeatureBlock] | None = None,
        display_range: tuple[float, float] | None = None,
        watch: Stopwatch | None = None,
        should_stop: Callable[[], bool] | None = None,
        take: Take | None = None,
    ) -> Array:
        """The channels of a slab.

        Parameters
        ----------
        planes : numpy.ndarray or sequence of numpy.ndarray
            (nz, ny, nx) float32, or nz times (ny, nx), prepared.
        place : Place, optional
            Where they lie in the volume, and which of them are wanted; default: they are the volume.
        blocks : sequence of FeatureBlock, optional
            Compute these instead of all.
        display_range : (float, float), optional
            See :class:`~gpu_tomoclass.features.reference.source.FeatureSource`.
        watch : Stopwatch, optional
            Of the device, started; gets a lap for the upload to a GPU and one per family. What families share counts
            for the one that needs it first.
        should_stop : callable, optional
            Asked before each family, of a plane before each block; once True, StoppedError is raised.
        take : callable, optional
            Called with the channels (n, n_pixels) of one family after the other and their numbers among all; the next
            ones may come in the same memory.

        Returns
        -------
        array on the device
            (n_channels, planes that are wanted, ny, nx) float32, or with ``take`` those of the last family. The next
            call overwrites it.
        """
        place = Place.whole(len(planes)) if place is None else place
        blocks = self.blocks if blocks is None else blocks
        nearest = place.nearest(self._halo(blocks, place.aspect))
        key = (len(planes), tuple(planes[0].shape), nearest, tuple(blocks), display_range, take)
        if self._recorded is not None:
            if self._recorded.key == key and self._recorded.n_replaced == self.device.n_replaced:
                return self._repeat(self._recorded, planes, watch=watch, should_stop=should_stop)
            self._recorded = None  # before new arrays are made: it keeps the old ones in memory
        groups = self._groups(blocks)
        counts = [sum(len(block.channels) for _, block in group) for group in groups]
        room = sum(counts) if take is None else max(counts, default=0)
        out = self.workspace.array("features", (room, place.n_wanted, *planes[0].shape), np.float32)
        on_device = _OnDevice(planes, self.workspace, nearest, display_range) if self.device.runs_kernels else None
        if watch is not None and on_device is not None and self.device.has_own_memory:
            watch.lap(TO_DEVICE)
        by_reference = _Reference(self.device, planes, place, display_range)
        parts: list[tuple[str, LaunchRecord | None]] = []
        for group in groups:
            at = [start for start, _ in group] if take is None else _behind_each_other(group)
            wanted = [
                BlockRequest(block.in_voxels(place.aspect), out[start : start + len(block.channels)], block.family)
                for start, (_, block) in zip(at, group, strict=True)
            ]
            family = wanted[0].family
            with self.device.recording() as record:
                self._fill(wanted, on_device, by_reference, should_stop)
                if take is not None:
                    numbers = [first + i for first, block in group for i in range(len(block.channels))]
                    take(out[: len(numbers)].reshape(len(numbers), -1), numbers)
            parts.append((family, record))
            if watch is not None:
                watch.lap(family)
        records = [(family, record) for family, record in parts if record is not None and record.is_whole]
        if records and len(records) == len(parts):
            self._recorded = _Recorded(key, self.device.n_replaced, records, out)
        return out

    def _repeat(
        self, recorded: _Recorded, planes: Planes, *, watch: Stopwatch | None, should_stop: Callable[[], bool] | None
    ) -> Array:
        """:meth:`compute` of other planes in the same place: the launches of the last time, in the same arrays."""
        uploaded_slab(planes, self.workspace)
        if watch is not None and self.device.has_own_memory:
            watch.lap(TO_DEVICE)
        for family, record in recorded.parts:
            _check(should_stop)
            record.repeat()
            if watch is not None:
                watch.lap(family)
        return recorded.out

    def _fill(
        self,
        wanted: Sequence[BlockRequest],
        on_device: _OnDevice | None,
        by_reference: _Reference,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        """Fill the blocks of one family."""
        row = row_of(wanted[0].family)
        # The requests of a family are of one bank: all of them have a kernel, or none.
        has_kernel = on_device is not None and row.has_kernel(**wanted[0].parameters)
        accelerated = accelerated_family(wanted[0].family) if has_kernel else None
        if on_device is not None and accelerated is not None:
            together = row.dimensions == 3 and not row.is_smoothed
            # Across planes what blocks share is most of the work; on a plane blocks cost about as much one by one.
            for part in [wanted] if should_stop is None or together else [[request] for request in wanted]:
                _check(should_stop)
                accelerated(*on_device.source(row, part))
        elif self.device.computes:
            for request in wanted:
                _check(should_stop)
                for channel, values in enumerate(by_reference.compute(request)):
                    self.device.upload(values, request.out[channel])

    def _halo(self, blocks: Sequence[FeatureBlock], aspect: Aspect) -> int:
        """Planes that the blocks see on each side; of those of the engine it is counted once."""
        if blocks is not self.blocks:
            return halo(blocks, aspect)
        if aspect not in self._halos:
            self._halos[aspect] = halo(blocks, aspect)
        return self._halos[aspect]

    @property
    def n_bytes(self) -> int:
        """Memory that the engine holds on the device; after one slab, what every slab of this shape needs."""
        return self.workspace.n_bytes

    def _groups(self, blocks: Sequence[FeatureBlock]) -> list[list[tuple[int, FeatureBlock]]]:
        """The blocks that are computed together, each with the number of its first channel among all."""
        groups: dict[str, list[tuple[int, FeatureBlock]]] = {}
        start = 0
        for block in blocks:
            groups.setdefault(self._computed_by(block), []).append((start, block))
            start += len(block.channels)
        return list(groups.values())

    def _computed_by(self, block: FeatureBlock) -> str:
        """Families of one function are computed together."""
        row = row_of(block.family)
        kernel = row.kernel if self.device.runs_kernels else None
        return block.family if kernel is None or row.dimensions == 2 or row.is_smoothed else kernel


class _Recorded(NamedTuple):
    """Launches of a slab, family by family, and what must be the same for another to ask for them again."""

    key: tuple[Any, ...]
    n_replaced: int  # arrays of the device
    parts: list[tuple[str, LaunchRecord]]
    out: Array


class _OnDevice:
    """A slab on the device, as each kind of family takes it."""

    def __init__(
        self, planes: Planes, workspace: Workspace, place: Place, display_range: tuple[float, float] | None
    ) -> None:
        self._of_planes = DeviceSource(planes, workspace, wanted=place.wanted, display_range=display_range)
        self._of_volume = VolumeDeviceSource(self._of_planes.slab, workspace, place)
        self._smoothed: dict[float, DeviceSource] = {}  # by the sigma along z; a bank has one

    def source(
        self, row: Family, requests: Sequence[BlockRequest]
    ) -> tuple[DeviceSource | VolumeDeviceSource, Sequence[BlockRequest]]:
        """Arguments of the family's function."""
        if row.dimensions == 2:
            return self._of_planes, requests
        if not row.is_smoothed:
            return self._of_volume, requests
        (sigma,) = {request.parameters["z"] for request in requests}
        if sigma not in self._smoothed:
            self._smoothed[sigma] = smoothed_planes(self._of_volume, sigma)
        plain = [
            replace(request, parameters={name: v for name, v in request.parameters.items() if name != "z"})
            for request in requests
        ]
        return self._smoothed[sigma], plain


def _behind_each_other(group: Sequence[tuple[int, FeatureBlock]]) -> list[int]:
    """Where the channels of each block begin when nothing is between them."""
    return np.cumsum([0, *(len(block.channels) for _, block in group[:-1])]).tolist()


def _check(should_stop: Callable[[], bool] | None) -> None:
    if should_stop is not None and should_stop():
        raise StoppedError("the features are not wanted any more")


class _Reference:
    """Blocks by the reference."""

    def __init__(self, device: Device, planes: Planes, place: Place, display_range: tuple[float, float] | None) -> None:
        self._device, self._given, self._place, self._display_range = device, planes, place, display_range

    @cached_property
    def _planes(self) -> Planes:
        """On the host, where the reference runs."""
        return self._device.numpy(self._given) if self._device.holds(self._given) else self._given

    @cached_property
    def _by_plane(self) -> list[FeatureSource]:
        return [FeatureSource(plane, display_range=self._display_range) for plane in self._planes[self._place.wanted]]

    @cached_property
    def _volume(self) -> VolumeSource:
        return volume_source(np.asarray(self._planes), self._place)

    def compute(self, request: BlockRequest) -> np.ndarray:
        """(n_channels, planes, ny, nx) float32."""
        row = row_of(request.family)
        if row.dimensions == 3:
            return row.compute(self._volume, request.parameters)
        return np.stack([row.compute(source, request.parameters) for source in self._by_plane], axis=1)


def accelerated_family(family: str) -> Accelerated | None:
    """The function that fills blocks of a family through kernels; None if it has none."""
    kernel = row_of(family).kernel
    if kernel is None:
        return None
    module, function = kernel.split(":")
    found: Accelerated = getattr(importlib.import_module(f"gpu_tomoclass.features.accelerated.{module}"), function)
    return found
