"""A volume on a coarser grid: each voxel is the mean of a box of voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes.place import binned_place, with_place
from gpu_tomoclass.volumes.volume import Volume

Bin = tuple[int, int, int]  # (z, y, x)
NO_BIN: Bin = (1, 1, 1)


def checked_bin(value: int | Sequence[int]) -> Bin:
    """``value`` for z, y and x.

    Raises
    ------
    UsageError
        Unless it is one or three whole numbers of at least 1.
    """
    numbers = [value] * 3 if isinstance(value, (int, np.integer)) else list(value)
    if len(numbers) != 3 or any(isinstance(n, bool) or int(n) != n or n < 1 for n in numbers):
        raise UsageError(f"bin {value!r} is not one or three whole numbers from 1 on", do="give 2, or 1,2,2 for z,y,x")
    z, y, x = (int(n) for n in numbers)
    return z, y, x


def binned_shape(shape: tuple[int, int, int], bin: Bin) -> tuple[int, int, int]:
    """Shape of the coarser grid: the last box of an axis may be cut by the end of the volume."""
    nz, ny, nx = (-(-n // b) for n, b in zip(shape, bin, strict=True))
    return nz, ny, nx


def refuse_binned(volume: Volume) -> None:
    """Raise UsageError for a binned volume: places on it are none on the volume that people mark in other programs."""
    if volume.bin != NO_BIN:
        raise UsageError("is binned, and places are those of stored voxels", where=volume.path, do="leave bin out")


class BinnedVolume(Volume):
    """Means of ``base`` over boxes of ``bin`` voxels; of the last box of an axis, over the voxels that there are.

    Means are taken in float64 and stored in the type of ``base``; those of whole numbers are rounded to the nearest, a
    half up. A voxel that is not finite makes its box so;
    planes that are missing are left out.

    Parameters
    ----------
    base : Volume
        Closed together with this volume.
    bin : (int, int, int)
        Voxels along z, y and x that become one.
    as_mask : bool
        Where at least half of a box is not 0 it is 1, else 0, uint8.

    Raises
    ------
    UsageError
        If the base holds labels, which have no mean.
    """

    def __init__(self, base: Volume, bin: Bin, *, as_mask: bool = False) -> None:
        if base.classes and not as_mask:
            raise UsageError("holds labels, which have no mean", where=base.path, do="bin the volume they belong to")
        size = base.voxel_size
        super().__init__(
            base.path,
            shape=binned_shape(base.shape, bin),
            dtype=np.dtype(np.uint8) if as_mask else base.dtype,
            format=base.format,
            axes=base.axes,
            voxel_size=None if size is None else (size[0] * bin[0], size[1] * bin[1], size[2] * bin[2]),
            metadata=with_place(base.metadata, binned_place(base.metadata, bin=bin, voxel_size=size)),
            files=base.files(),
            allow_missing_planes=base.allow_missing_planes,
        )
        self.metadata["binned_by"] = list(bin)
        self.notes = base.notes  # one list: what is found while reading the base is seen here too
        self.bin, self.full_shape = bin, base.shape
        self._base, self._as_mask = base, as_mask

    def _read_plane(self, z: int) -> np.ndarray:
        bz, by, bx = self.bin
        nz, ny, nx = self._base.shape
        first, stop = z * bz, min(nz, (z + 1) * bz)
        whole = self.dtype.kind in "iub"
        wide = whole and self.dtype.itemsize == 8 and not self._as_mask  # their sums do not fit into 64 bits
        parts, n_planes = np.zeros((2 if wide else 1, ny, nx), np.int64 if whole else np.float64), 0
        for k in range(first, stop):
            plane = self._base.plane(k)
            if k not in self._base.missing_planes:
                if wide:
                    parts[0] += (plane & 0xFFFFFFFF).astype(np.int64)
                    parts[1] += (plane >> 32).astype(np.int64)
                else:
                    parts[0] += plane != 0 if self._as_mask else plane
                n_planes += 1
        if not n_planes:
            self.mark_missing([z])
            return np.zeros(self.shape[1:], self.dtype)
        rows, columns = np.arange(0, ny, by), np.arange(0, nx, bx)
        total, *high = np.add.reduceat(np.add.reduceat(parts, rows, axis=1), columns, axis=2)
        count = np.multiply.outer(np.minimum(by, ny - rows), np.minimum(bx, nx - columns)) * n_planes
        if self._as_mask:
            return (2 * total >= count).astype(np.uint8)
        if not whole:
            return np.ascontiguousarray(total / count, dtype=self.dtype)
        upper = np.zeros_like(total)
        if high:
            upper, rest = np.divmod(high[0], count)
            total += rest << 32
        mean = np.ascontiguousarray((2 * total + count) // (2 * count), dtype=self.dtype)
        return mean if not high else mean + (upper.astype(self.dtype) * 2**32)

    def check_unchanged(self) -> None:
        self._base.check_unchanged()

    def close(self) -> None:
        self._base.close()

    def __del__(self) -> None:
        """The base closes itself where nobody else holds it."""
