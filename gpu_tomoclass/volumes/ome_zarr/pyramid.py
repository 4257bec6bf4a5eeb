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

    def add(self, z: int, plane: np.ndarray, *, sync: bool = False) -> None:
        """Plane z of the finest level has been written; make the coarse planes that waited for it alone."""
        for i in range(len(self.levels)):
            with self._lock:
                self._present[i][z] = True
                if i == len(self._steps):
                    return
                coarse = z // self._steps[i][0]
                if self._begun[i + 1][coarse] or not self._present[i][self._sources(i, coarse)].all():
                    return
                self._begun[i + 1][coarse] = True
            plane = self._made(i, coarse, {z: plane})
            self.levels[i + 1].write(coarse, plane[..., None, :, :], sync=sync)
            z = coarse

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
    exact_in_32_bits = dtype.kind in "iu" and dtype.itemsize <= 2  # sums of eight such values
    values = values.astype(np.float32 if exact_in_32_bits else np.float64)
    for axis, factor in zip((-3, -2, -1), step, strict=True):
        values = _halved(values, axis) if factor == 2 else values
    return np.rint(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype)


def _halved(values: np.ndarray, axis: int) -> np.ndarray:
    """Means of pairs along an axis; an odd last value stays as it is."""
    values = np.moveaxis(values, axis, 0)
    if len(values) % 2:
        values = np.concatenate([values, values[-1:]])
    return np.moveaxis((values[::2] + values[1::2]) / 2, 0, axis)
