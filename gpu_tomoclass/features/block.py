"""Blocks of channels: what one family makes at one sigma, computed and cached on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_tomoclass.features.families import FAMILIES, ORIGINAL
from gpu_tomoclass.features.family import NM, Family, number
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.volume_source import CUBES, Aspect, VolumeSource


def row_of(name: str) -> Family:
    """The row of a family, or that of the plane itself."""
    return ORIGINAL if name == ORIGINAL.name else FAMILIES[name]


@dataclass(frozen=True)
class FeatureBlock:
    """The channels that one family makes at one sigma: the smallest unit that is computed and cached on its own.

    Attributes
    ----------
    family : str
        A name of :data:`FAMILIES`, or ``"original"``.
    sigma : float or None
        In pixels or nm; None for families with fixed parameters.
    parameters : tuple of (str, value)
        What the family's reference is called with.
    channels : tuple of str
        TWS's names.
    start, stop : int
        Their place among the bank's channels.
    """

    family: str
    sigma: float | None
    parameters: tuple[tuple[str, Any], ...]
    channels: tuple[str, ...]
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Name of the values, the same in every bank; for file names: letters, digits, ``_``, ``-`` and ``.`` only.

        The same plane and key give the same values, for one definition version and display range.
        """
        return "-".join([self.family, *(f"{name}{_key_text(value)}" for name, value in self.parameters)])

    @property
    def dimensions(self) -> int:
        """2, or 3 if the filter looks across planes."""
        return row_of(self.family).dimensions

    def reaches(self, aspect: Aspect = CUBES) -> tuple[int, int, int]:
        """Largest distances in voxels along z, y, x over which the filter itself looks; UsageError as of
        :meth:`in_voxels`."""
        return row_of(self.family).reaches(aspect, dict(self.parameters))

    def in_voxels(self, aspect: Aspect) -> dict[str, Any]:
        """The parameters on voxels of this aspect, none of them in nm.

        Raises
        ------
        UsageError
            If a sigma is in nm and the size of the voxels is not known, or makes it too small or too large.
        """
        return row_of(self.family).in_voxels(aspect, dict(self.parameters))

    @property
    def is_smoothed(self) -> bool:
        """Tell whether it is made of planes that are smoothed along z."""
        return row_of(self.family).is_smoothed

    @property
    def is_in_nm(self) -> bool:
        """Tell whether the sigma is a length in nm."""
        return (NM, True) in self.parameters

    @property
    def reach(self) -> int:
        """Largest distance in pixels along x over which the filter itself looks; none in nm."""
        return self.reaches()[2]

    @property
    def is_local(self) -> bool:
        """Tell whether pixels further away than the filter looks cannot change a value."""
        return not row_of(self.family).whole_plane

    @property
    def definition_version(self) -> int:
        """The definition version that last changed the values."""
        return row_of(self.family).changed_in(**dict(self.parameters))

    @property
    def parts(self) -> tuple[FeatureBlock, ...]:
        """The same channels as smaller blocks, one after the other; itself if it cannot be divided."""
        row, parts, start = row_of(self.family), [], self.start
        for parameters in row.parts(**dict(self.parameters)):
            stop = start + len(row.labels(**parameters))
            channels = self.channels[start - self.start : stop - self.start]
            parts.append(replace(self, parameters=tuple(parameters.items()), channels=channels, start=start, stop=stop))
            start = stop
        return tuple(parts) or (self,)

    @property
    def has_kernel(self) -> bool:
        """Tell whether devices that run kernels compute it by them; if not, by the reference."""
        row = row_of(self.family)
        return row.kernel is not None and row.has_kernel(**dict(self.parameters))

    @property
    def reference_bytes(self) -> int:
        """Memory that the reference takes at most per pixel, its result included."""
        return 4 * len(self.channels) + row_of(self.family).scratch

    @property
    def radius(self) -> int | None:
        """Distance in pixels beyond which a pixel cannot change a value; None where every pixel of the plane can."""
        return self.reach if self.is_local else None


def check_lengths(blocks: Iterable[FeatureBlock], aspect: Aspect) -> None:
    """Raise UsageError, as of :meth:`FeatureBlock.in_voxels`, unless sigmas in nm have a size on these voxels."""
    for block in blocks:
        block.in_voxels(aspect)


def halo(blocks: Iterable[FeatureBlock], aspect: Aspect = CUBES) -> int:
    """Number of planes on both sides of a plane that these blocks look at."""
    return max((block.reaches(aspect)[0] for block in blocks), default=0)


def _key_text(value: float | int | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return "_".join(number(v) for v in value)
    return str(value) if isinstance(value, int) else number(value)


def volume_source(planes: np.ndarray, place: Place) -> VolumeSource:
    """Planes (nz, ny, nx) at their place, for the reference of families that look across planes."""
    core = place.start, place.stop
    return VolumeSource(planes, first=place.first, depth=place.depth, core=core, aspect=place.aspect)
