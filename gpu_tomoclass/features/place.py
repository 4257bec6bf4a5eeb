"""Place of a slab of planes in its volume, which filters that look across planes need to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpu_tomoclass.features.reference.volume_source import CUBES, Aspect, voxel_aspect


@dataclass(frozen=True)
class Place:
    """A slab of planes and those of them whose features are wanted; the others are its halo.

    Attributes
    ----------
    first : int
        Position in the volume of the slab's first plane.
    n_planes : int
        Of the slab.
    depth : int
        Planes of the volume.
    start, stop : int
        Positions in the volume of the planes that are wanted.
    aspect : Aspect
    """

    first: int
    n_planes: int
    depth: int
    start: int
    stop: int
    aspect: Aspect = CUBES

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.start < self.stop <= self.first + self.n_planes <= self.depth:
            raise ValueError(f"a slab cannot lie like this: {self}")

    @classmethod
    def whole(cls, n_planes: int, *, aspect: Aspect = CUBES) -> Place:
        """Of planes that are a volume of their own."""
        return cls(0, n_planes, n_planes, 0, n_planes, aspect)

    @classmethod
    def with_halo(cls, start: int, stop: int, *, depth: int, halo: int, aspect: Aspect = CUBES) -> Place:
        """Of planes ``start`` to ``stop - 1`` and up to ``halo`` others on both sides of them."""
        first = max(start - halo, 0)
        return cls(first, min(stop + halo, depth) - first, depth, start, stop, aspect)

    @property
    def n_wanted(self) -> int:
        return self.stop - self.start

    @property
    def wanted(self) -> slice:
        """The wanted planes of the slab."""
        return slice(self.start - self.first, self.stop - self.first)

    def part(self, start: int, stop: int, *, halo: int) -> Place:
        """Of some of the wanted planes, with no larger halo than they need."""
        return Place.with_halo(start, stop, depth=self.depth, halo=halo, aspect=self.aspect)

    def nearest(self, reach: int) -> Place:
        """Of all places where filters that see ``reach`` planes give the same, the one with the fewest planes around.

        So most slabs of a volume have one place. Kernels are cut to the depth of a volume that is not deeper than they
        are long; beyond that, the number of planes out of reach is no matter.
        """
        most = 2 * reach + 2 if reach else 0
        first = min(self.first, most)
        behind = min(self.depth - self.first - self.n_planes, most)
        start = self.start - self.first + first
        return Place(first, self.n_planes, first + self.n_planes + behind, start, start + self.n_wanted, self.aspect)

    def scaled(self, aspect: Aspect) -> Place:
        """The same place in a volume of other voxels."""
        return replace(self, aspect=aspect)


def aspect_of(voxel_size: Sequence[float] | None) -> Aspect:
    """Of voxels of this size along z, y, x; cubes where it is not known, as in TWS."""
    if voxel_size is None:
        return CUBES
    z, y, x = voxel_size
    return voxel_aspect((z, y, x))
