"""The coarser levels of an image, made while its planes are written."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.volumes.ome_zarr.level import Level


class Pyramid:
    """Coarser levels that grow with the finest one, whose planes may come in any order and from several threads.

    Parameters
    ----------
    levels : sequence of Level
        From the finest, which is being filled, to the coarsest.
    steps : sequence of tuple of int
        By how much each level but the first is coarser than the one before it, along z, y, x: 1 or 2.
    nearest : bool
        A coarse voxel is the first of those it stands for (labels), else their mean.
    written : numpy.ndarray, optional
        (nz,) bool: planes of the finest level that are there already.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        steps: Sequence[tuple[int, ...]],
        *,
        nearest: bool,
        written: np.ndarray | None = None,
    ) -> None:
        self.levels, self._steps, self._nearest = tuple(levels), tuple(steps), nearest
        self._lock = threading.Lock()
        self._present = [np.zeros(level.n_planes, np.bool_) for level in levels]
        self._begun = [np.zeros(level.n_planes, np.bool_) for level in levels]
        if written is not None:
            self._present[0] |= written

    def add(self, start: int, planes: np.ndarray, *, sync: bool = False) -> None:
        """Planes ``start`` and following of the finest level have been written; make what waited for these alone.

        They are (n, ny, nx), or (n_channels, n, ny, nx).
        """
        new = {start + i: planes[..., i, :, :] for i in range(planes.shape[-3])}
        for i in range(len(self.levels)):
            coarser: dict[int, np.ndarray] = {}
            for z in new:
                if (coarse := self._complete_with(i, z)) is not None:
                    coarser[coarse] = self._made(i, coarse, new)
                    self.levels[i + 1].write(coarse, coarser[coarse][..., None, :, :], sync=sync)
            new = coarser

    def _complete_with(self, i: int, z: int) -> int | None:
        """Note that plane z of level i is there; the plane of the next level that waited for it alone."""
        with self._lock:
            self._present[i][z] = True
            if i == len(self._steps):
                return None
            coarse = z // self._steps[i][0]
            if self._begun[i + 1][coarse] or not self._present[i][self._sources(i, coarse)].all():
                return None
            self._begun[i + 1][coarse] = True
            return int(coarse)

    def finish(self) -> None:
        """Make every coarse plane that is not there."""
        for i, level in enumerate(self.levels[1:]):
            for z in np.flatnonzero(~self._present[i + 1]).tolist():
                level.write(z, self._made(i, z, {})[..., None, :, :])
            self._present[i + 1][:] = True

    def _sources(self, i: int, coarse: int) -> list[int]:
        """Planes of level i that plane ``coarse`` of the next is made of."""
        step = self._steps[i][0]
        if self._nearest:
            return [coarse * step]
        return list(range(coarse * step, min((coarse + 1) * step, self.levels[i].n_planes)))

    def _made(self, i: int, coarse: int, known: Mapping[int, np.ndarray]) -> np.ndarray:
        """Plane ``coarse`` of level i + 1: (ny, nx), or (n_channels, ny, nx)."""
        planes = [known[z] if z in known else self.levels[i].read(z) for z in self._sources(i, coarse)]
        _, y, x = self._steps[i]
        if self._nearest:
            return planes[0][..., ::y, ::x]
        source = np.stack(planes, axis=-3)
        if source.ndim == 3:
            return means(source, self._steps[i])[0]
        return np.stack([means(channel, self._steps[i])[0] for channel in source])  # one by one: they become floats


def means(values: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """Means of pairs along z, y, x where the step is 2, of the same dtype (integers: rounded, half to even)."""
    dtype: np.dtype[Any] = values.dtype
    if dtype.kind in "iu" and dtype.itemsize == 8:
        return _means_of_64_bits(values, step)
    exact_in_32_bits = dtype.kind in "iu" and dtype.itemsize <= 2  # sums of eight such values
    values = values.astype(np.float32 if exact_in_32_bits else np.float64)
    for axis, factor in zip((-3, -2, -1), step, strict=True):
        values = _halved(values, axis) if factor == 2 else values
    return np.rint(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype)


def _means_of_64_bits(values: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """The same of int64 or uint64, whose sums do not fit into a float: those of upper and lower halves, apart."""
    low, high = (values & 0xFFFFFFFF).astype(np.int64), (values >> 32).astype(np.int64)
    bits = 0  # 2**bits values in each sum, at most 8
    for axis, factor in zip((-3, -2, -1), step, strict=True):
        if factor == 2:
            low, high, bits = _summed(low, axis), _summed(high, axis), bits + 1
    rest = ((high & 2**bits - 1) << 32) + low  # below 2**36
    return ((high >> bits).astype(values.dtype) << 32) + np.rint(rest / 2**bits).astype(values.dtype)


def _halved(values: np.ndarray, axis: int) -> np.ndarray:
    """Means of pairs along an axis; an odd last value stays as it is."""
    return _summed(values, axis) / 2


def _summed(values: np.ndarray, axis: int) -> np.ndarray:
    """Sums of pairs along an axis; an odd last value counts twice."""
    values = np.moveaxis(values, axis, 0)
    if len(values) % 2:
        values = np.concatenate([values, values[-1:]])
    return np.moveaxis(values[::2] + values[1::2], 0, axis)
