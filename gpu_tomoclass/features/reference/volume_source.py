"""A slab of planes as the features see it that look across planes, and where the taps of a filter lie.

All positions along z count from the first plane of the whole volume, not of the slab: lengths of kernels, mirrors and
padding are those of the volume, so that a slab gives the values of the volume, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.features.reference.source import FeatureSource


class Aspect(NamedTuple):
    """Shape of voxels, and where it is known their size.

    Attributes
    ----------
    z, y, x : float
        Length of a voxel along x divided by its length along z, y and x (which is 1).
    nm : float or None
        Its length along x in nm: sigmas in nm are converted by it.
    """

    z: float = 1.0
    y: float = 1.0
    x: float = 1.0
    nm: float | None = None

    @property
    def axes(self) -> tuple[float, float, float]:
        """Of z, y, x."""
        return self[:3]


CUBES = Aspect()
Image = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
SNAP = 1e-15  # two units in the last place


def voxel_aspect(voxel_size: tuple[float, float, float]) -> Aspect:
    """The aspect of voxels of a size along z, y, x in nm; exactly 1 where lengths are equal.

    A quotient within two units in the last place of a number of 12 digits is that number: lengths that were converted
    between units would otherwise move it, and with it the number of taps where that jumps.

    Raises
    ------
    UsageError
        If a length is not finite and above 0.
    """
    if not all(np.isfinite(length) and length > 0 for length in voxel_size):
        raise UsageError(f"a voxel needs finite lengths above 0, not {voxel_size}")
    z, y, x = voxel_size
    return Aspect(snapped(x / z), snapped(x / y), 1.0, x)


def snapped(quotient: float) -> float:
    """The number of 12 digits that a quotient is within two units in the last place of, or itself."""
    short = float(f"{quotient:.12g}")
    return short if abs(short - quotient) <= SNAP * quotient else quotient


class VolumeSource:
    """Planes of a volume, read-only: those whose features are wanted and those that these features look at.

    Parameters
    ----------
    planes : ndarray
        (nz, ny, nx), any integer or float dtype, finite; seen as float32 without rescaling, as TWS does.
    first : int
        Position of ``planes[0]`` in the volume.
    depth : int, optional
        Planes of the whole volume; default: the slab is the volume.
    core : (int, int), optional
        Positions ``start`` and ``stop`` of the planes whose features are wanted; default all of the slab. The slab must
        hold every plane of the volume within the family's reach of them.
    aspect : Aspect

    Attributes
    ----------
    image : ndarray
        (nz, ny, nx) float32, read-only.
    first, depth, start, stop : int
    aspect : Aspect

    Raises
    ------
    UsageError
        If the planes are no 3-D image of real numbers or do not lie in the volume.
    """

    def __init__(
        self,
        planes: npt.NDArray[np.generic],
        *,
        first: int = 0,
        depth: int | None = None,
        core: tuple[int, int] | None = None,
        aspect: Aspect = CUBES,
    ) -> None:
        planes = np.asarray(planes)
        if planes.ndim != 3 or planes.size == 0:
            raise UsageError(f"features across planes need (z, y, x) with at least one voxel, not {planes.shape}")
        if planes.dtype.kind not in "biuf":
            raise UsageError(f"features need real numbers, not {planes.dtype}")
        self.first = first
        self.depth = first + len(planes) if depth is None else depth
        self.start, self.stop = (first, first + len(planes)) if core is None else core
        if not 0 <= first <= self.start < self.stop <= first + len(planes) <= self.depth:
            raise UsageError(
                f"planes {self.start} to {self.stop - 1} are wanted of a slab from {first} to"
                f" {first + len(planes) - 1} of a volume of {self.depth}"
            )
        self.aspect = aspect
        self.image = np.ascontiguousarray(planes, dtype=np.float32).view()
        self.image.flags.writeable = False
        self.smoothed: dict[float, list[FeatureSource]] = {}  # by sigma along z

    @property
    def shape(self) -> tuple[int, int, int]:
        """(planes that are wanted, ny, nx)."""
        return self.stop - self.start, self.image.shape[1], self.image.shape[2]

    def within_slab(self, positions: Positions) -> Positions:
        """Positions in the volume as indices into ``image``.

        Raises
        ------
        ValueError
            If the slab lacks one of them: its halo is too small.
        """
        return within(positions, self.first, len(self.image))


def within(positions: Positions, first: int, n_planes: int) -> Positions:
    """Positions in the volume as indices into a slab of ``n_planes`` from plane ``first`` on; ValueError if outside."""
    indices = positions - first
    if indices.size and not (indices.min() >= 0 and indices.max() < n_planes):
        raise ValueError(
            f"planes {positions.min()} to {positions.max()} are needed of a slab from {first} to {first + n_planes - 1}"
        )
    return indices


def mirrored(positions: Positions, length: int) -> Positions:
    """Positions within 0..length - 1 of a line that is mirrored again and again; its end pixels are not repeated."""
    if length == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * length - 2)
    return np.minimum(folded, 2 * length - 2 - folded)


def taps(start: int, stop: int, half: int) -> Positions:
    """All positions that a filter of this half-width meets from ``start`` to ``stop - 1``: tap k of output i, counted
    from the lowest, is entry i - start + k."""
    return np.arange(start - half, stop + half, dtype=np.int64)
