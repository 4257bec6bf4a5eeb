"""Part of a volume that counts: a box, and of it the voxels that a mask holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.binned import BinnedVolume
from gpu_tomoclass.volumes.opening import VolumeLike, open_volume
from gpu_tomoclass.volumes.volume import Volume

Range = tuple[int, int]
Crop = str | Sequence[Sequence[int | None]]  # "z0:z1,y0:y1,x0:x1", or three pairs


@dataclass(frozen=True)
class Region:
    """Voxels of a volume that count.

    Attributes
    ----------
    box : three pairs
        First and last + 1 of the planes, rows and columns.
    shape : (nz, ny, nx)
        Of the volume.
    mask : Volume, optional
        Of the volume's shape; where it is not 0, a voxel counts. Of a binned volume, also of its shape as stored.
    """

    box: tuple[Range, Range, Range]
    shape: tuple[int, int, int]
    mask: Volume | None = None

    @classmethod
    def of(
        cls,
        volume: Volume,
        *,
        planes: tuple[int, int] | None = None,
        crop: Crop | None = None,
        mask: VolumeLike | None = None,
    ) -> Region:
        """The region that options mean; all of the volume without any.

        Raises
        ------
        UsageError
            If a range is empty or leaves the volume, or ``planes`` and ``crop`` have no plane in common.
        DataError
            If the mask has another shape.
        """
        pairs: Any = ((None, None),) * 3 if crop is None else crop_pairs(crop)
        box = [(first or 0, n if last is None else last) for (first, last), n in zip(pairs, volume.shape, strict=True)]
        if any(not 0 <= first < last <= n for (first, last), n in zip(box, volume.shape, strict=True)):
            whole = crop_text([(0, n) for n in volume.shape])
            raise UsageError(f"the box {crop_text(box)} is not inside of the volume's {whole}", where=volume.path)
        if planes is not None:
            first, last = planes
            if not 0 <= first < last <= volume.shape[0]:
                what = f"planes {first}:{last} are not among its planes 0:{volume.shape[0]}"
                raise UsageError(what, where=volume.path)
            box[0] = max(first, box[0][0]), min(last, box[0][1])
            if box[0][0] >= box[0][1]:
                raise UsageError(f"planes {first}:{last} are not in the box {crop_text(box)}", where=volume.path)
        opened = None if mask is None else open_volume(mask)
        if opened is not None and opened.shape != volume.shape and opened.shape == volume.full_shape:
            opened = BinnedVolume(opened, volume.bin, as_mask=True)
        if opened is not None and opened.shape != volume.shape:
            raise DataError(
                f"the mask is {opened.shape}, the volume {volume.shape} (z, y, x)",
                where=opened.path,
                do="give a mask of the volume's shape",
            )
        return cls((box[0], box[1], box[2]), volume.shape, opened)

    @property
    def is_whole(self) -> bool:
        """Tell whether every voxel counts."""
        return self.mask is None and self.box == tuple((0, n) for n in self.shape)

    @property
    def first(self) -> tuple[int, int, int]:
        """Position of the box in the volume."""
        return self.box[0][0], self.box[1][0], self.box[2][0]

    @property
    def box_shape(self) -> tuple[int, int, int]:
        z, y, x = (last - first for first, last in self.box)
        return z, y, x

    @property
    def in_plane(self) -> tuple[slice, slice]:
        """Rows and columns of the box."""
        return slice(*self.box[1]), slice(*self.box[2])

    def outside(self, z: int) -> np.ndarray | None:
        """(ny, nx) bool of a plane of the volume, True where voxels do not count; None if all of them do."""
        if self.is_whole:
            return None
        found = np.ones(self.shape[1:], np.bool_)
        if self.box[0][0] <= z < self.box[0][1]:
            found[self.in_plane] = False if self.mask is None else self.mask.plane(z)[self.in_plane] == 0
        return found if found.any() else None

    def to_dict(self) -> dict[str, Any]:
        """For provenance: {} where every voxel counts."""
        if self.is_whole:
            return {}
        return {"crop": crop_text(self.box), **({} if self.mask is None else {"mask": self.mask.fingerprint()})}


def crop_pairs(crop: Crop) -> list[tuple[int | None, int | None]]:
    """Three ranges along z, y, x; an end that was left out is None.

    Raises
    ------
    UsageError
        Unless it is such a text, or three pairs of whole numbers.
    """
    try:
        if isinstance(crop, (str, PathLike)):
            pairs = [[int(n) if n.strip() else None for n in part.split(":")] for part in fspath(crop).split(",")]
        else:
            pairs = [[None if n is None else int(n) for n in pair] for pair in crop]
        (z0, z1), (y0, y1), (x0, x1) = pairs
    except (TypeError, ValueError):
        raise UsageError(
            f"the crop {crop!r} is not three ranges of voxels",
            do='give "z0:z1,y0:y1,x0:x1"; an end that is left out is that of the volume, as in "100:200,:,:300"',
        ) from None
    return [(z0, z1), (y0, y1), (x0, x1)]


def crop_text(box: Sequence[Sequence[int]]) -> str:
    """``"100:200,0:428,0:317"``."""
    return ",".join(f"{first}:{last}" for first, last in box)
