"""Features of the planes that a person looks at, held in memory within a budget, in bands of rows.

Bands are what the forest is asked for at a time, so that a new stroke need not wait for a whole plane.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, HostDevice, available_bytes
from gpu_tomoclass.errors import DataError, StoppedError
from gpu_tomoclass.features import (
    FeatureBank,
    FeatureCache,
    FeatureEngine,
    IntensityScale,
    PreparedSlab,
    SlabKeys,
    aspect_of,
    block_values,
    prepare_slab,
)
from gpu_tomoclass.volumes import Volume

BAND_PIXELS = 8_192  # the forest takes some 10 ms for them on two cores
MEMORY_SHARE = 0.3  # of what is free when the session begins

Stop = Callable[[], bool]


@dataclass(frozen=True)
class PlaneFeatures:
    """The channels of one plane.

    Attributes
    ----------
    bands : sequence of numpy.ndarray
        (n_channels, n_pixels) float32 each, C-contiguous, of consecutive pixels; all but the last have as many.
    filled : numpy.ndarray or None
        (ny, nx) bool, where a voxel that was not finite took the value of another.
    """

    bands: Sequence[npt.NDArray[np.float32]]
    filled: npt.NDArray[np.bool_] | None

    @property
    def n_bytes(self) -> int:
        """Memory of the bands."""
        return sum(band.nbytes for band in self.bands)

    def rows(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(n, n_channels) of these flat positions, which rise."""
        step = self.bands[0].shape[1]
        found = np.empty((pixels.size, len(self.bands[0])), np.float32)
        first = 0
        for number, band in enumerate(self.bands):
            last = int(np.searchsorted(pixels, (number + 1) * step))
            found[first:last] = band[:, pixels[first:last] - number * step].T
            first = last
        return found


class FeatureHolder:
    """Computes the features of planes, and keeps those that were used last. For one thread.

    Parameters
    ----------
    volume : Volume
    bank : FeatureBank
    scale : IntensityScale
    nan : {"error", "fill", "mask"}
    device : Device
        With all its threads: one plane is computed at a time.
    cache : FeatureCache, optional
        Asked before a plane is computed, and given marked planes when there is time.
    budget : int, optional
        Bytes of planes to hold; default a share of the memory that is free. The last plane is always held.
    """

    def __init__(
        self,
        volume: Volume,
        bank: FeatureBank,
        *,
        scale: IntensityScale,
        nan: str,
        device: Device,
        cache: FeatureCache | None = None,
        budget: int | None = None,
    ) -> None:
        self._volume, self._bank, self._scale, self._nan = volume, bank, scale, nan
        self._engine = FeatureEngine(device, bank.blocks)
        self._cache = cache
        free = available_bytes()
        self._budget = budget if budget is not None else int(MEMORY_SHARE * (free or 2**31))
        self._held: OrderedDict[int, PlaneFeatures] = OrderedDict()
        self._on_disk: set[int] = set()

    def holds(self, z: int) -> bool:
        """Tell whether the plane costs nothing any more."""
        return z in self._held

    def get(self, z: int, *, should_stop: Stop) -> PlaneFeatures:
        """The features of plane ``z``.

        Raises
        ------
        StoppedError
            If ``should_stop`` said so before they were complete.
        DataError
            If the plane cannot be read or used.
        """
        if z in self._held:
            self._held.move_to_end(z)
            return self._held[z]
        halo = self._bank.z_reach(aspect_of(self._volume.voxel_size))
        slab = prepare_slab(self._volume, z, z + 1, halo=halo, scale=self._scale, nan=self._nan)
        plane = slab.wanted[0]
        if plane.missing:
            raise DataError(f"plane {z} cannot be read", where=self._volume.path, do="mark another plane")
        ny, nx = plane.image.shape
        device = self._engine.device
        empty = device.empty if isinstance(device, HostDevice) else np.empty  # which then need not be copied
        bands = [
            empty((self._bank.n_channels, min(BAND_PIXELS, ny * nx - first)), np.float32)
            for first in range(0, ny * nx, BAND_PIXELS)
        ]
        self._make_room(sum(band.nbytes for band in bands))
        if self._cache is not None and self._cached(slab, bands, should_stop):
            self._on_disk.add(z)
        else:
            found = device.numpy(self._engine.compute(slab.images, place=slab.place, should_stop=should_stop))
            _fill(bands, found.reshape(self._bank.n_channels, -1), start=0)
        self._held[z] = PlaneFeatures(bands, plane.filled)
        return self._held[z]

    def wants_disk(self, z: int) -> bool:
        """Tell whether plane ``z`` is held and not in the cache yet."""
        return self._cache is not None and z in self._held and z not in self._on_disk

    def to_disk(self, z: int, *, should_stop: Stop) -> None:
        """Put plane ``z``, which is held, into the cache, block by block, where training finds it.

        Raises
        ------
        StoppedError
            If ``should_stop`` said so before all was there.
        """
        assert self._cache is not None
        halo = self._bank.z_reach(aspect_of(self._volume.voxel_size))
        slab = prepare_slab(self._volume, z, z + 1, halo=halo, scale=self._scale, nan=self._nan)
        held = self._held[z]
        shape = slab.wanted[0].image.shape
        keys = SlabKeys(self._cache, slab, device=self._engine.device.name)
        for block in self._bank.blocks:
            _check(should_stop)
            values = np.concatenate([band[block.start : block.stop] for band in held.bands], axis=1)
            self._cache.put(keys.key(block), block, values.reshape(-1, *shape))
        self._cache.trim()
        self._on_disk.add(z)

    def forget(self) -> None:
        """Free all planes."""
        self._held.clear()

    def _cached(self, slab: PreparedSlab, bands: Sequence[np.ndarray], should_stop: Stop) -> bool:
        """Fill the bands from the cache; False if it has not all of them."""
        assert self._cache is not None
        keys = SlabKeys(self._cache, slab, device=self._engine.device.name)
        if not all(self._cache.holds(keys.key(block), block) for block in self._bank.blocks):
            return False
        for block, channels in block_values(self._engine, slab, cache=self._cache):
            _check(should_stop)
            _fill(bands, channels.reshape(len(channels), -1), start=block.start)
        return True

    def _make_room(self, n_bytes: int) -> None:
        held = sum(plane.n_bytes for plane in self._held.values())
        while self._held and held + n_bytes > self._budget:
            _, gone = self._held.popitem(last=False)
            held -= gone.n_bytes


def _fill(bands: Sequence[np.ndarray], channels: np.ndarray, *, start: int) -> None:
    """Channels ``start`` and following of a plane, (n, n_pixels), into its bands."""
    first = 0
    for band in bands:
        band[start : start + len(channels)] = channels[:, first : first + band.shape[1]]
        first += band.shape[1]


def _check(should_stop: Stop) -> None:
    if should_stop():
        raise StoppedError("the features are not wanted any more")
