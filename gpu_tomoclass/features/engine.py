"""Feature blocks of a slab on any device: through kernels, or through the reference where there are none."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import numpy as np

from gpu_tomoclass.device import Array, Device, Planes, Stopwatch, Workspace
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.bank import FeatureBlock
from gpu_tomoclass.features.families import FAMILIES, ORIGINAL
from gpu_tomoclass.features.reference.source import FeatureSource

TO_DEVICE = "host to device"  # a lap, where arrays must be moved
Accelerated = Callable[[DeviceSource, Sequence[BlockRequest]], None]


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

    def compute(
        self,
        planes: Planes,
        *,
        blocks: Sequence[FeatureBlock] | None = None,
        display_range: tuple[float, float] | None = None,
        watch: Stopwatch | None = None,
    ) -> Array:
        """The channels of a slab.

        Parameters
        ----------
        planes : numpy.ndarray or sequence of numpy.ndarray
            (nz, ny, nx) float32, or nz times (ny, nx), prepared.
        blocks : sequence of FeatureBlock, optional
            Compute these instead of all.
        display_range : (float, float), optional
            See :class:`~gpu_tomoclass.features.reference.source.FeatureSource`.
        watch : Stopwatch, optional
            Of the device, started; gets a lap for the upload to a GPU and one per family. What families share counts
            for the one that needs it first.

        Returns
        -------
        array on the device
            (n_channels, nz, ny, nx) float32. The next call overwrites it.
        """
        blocks = self.blocks if blocks is None else blocks
        n_channels = sum(len(block.channels) for block in blocks)
        out = self.workspace.array("features", (n_channels, len(planes), *planes[0].shape), np.float32)
        requests: dict[str, list[BlockRequest]] = {}
        start = 0
        for block in blocks:
            stop = start + len(block.channels)
            requests.setdefault(block.family, []).append(BlockRequest(dict(block.parameters), out[start:stop]))
            start = stop
        source = DeviceSource(planes, self.workspace, display_range=display_range) if self.device.runs_kernels else None
        if watch is not None and source is not None and self.device.has_own_memory:
            watch.lap(TO_DEVICE)
        by_plane = [FeatureSource(plane, display_range=display_range) for plane in planes]
        for family, wanted in requests.items():
            accelerated = accelerated_family(family) if source is not None else None
            if source is not None and accelerated is not None:
                accelerated(source, wanted)
            else:
                self._compute_by_reference(by_plane, family, wanted)
            if watch is not None:
                watch.lap(family)
        return out

    @property
    def n_bytes(self) -> int:
        """Memory that the engine holds on the device; after one slab, what every slab of this shape needs."""
        return self.workspace.n_bytes

    def _compute_by_reference(
        self, by_plane: Sequence[FeatureSource], family: str, wanted: Sequence[BlockRequest]
    ) -> None:
        row = ORIGINAL if family == ORIGINAL.name else FAMILIES[family]
        for request in wanted:
            for z, source in enumerate(by_plane):
                values = row.compute(source, request.parameters)
                for channel, image in enumerate(values):
                    self.device.upload(image, request.out[channel, z])


def accelerated_family(family: str) -> Accelerated | None:
    """The function that fills blocks of a family through kernels; None if it has none."""
    row = ORIGINAL if family == ORIGINAL.name else FAMILIES[family]
    if row.kernel is None:
        return None
    module, function = row.kernel.split(":")
    found: Accelerated = getattr(importlib.import_module(f"gpu_tomoclass.features.accelerated.{module}"), function)
    return found
