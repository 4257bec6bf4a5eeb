"""Planes as the features see them: read, scaled, non-finite voxels filled or refused."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features.intensity import EXACT_IN_FLOAT32, NAN_POLICIES, IntensityScale
from gpu_tomoclass.features.place import Place, aspect_of
from gpu_tomoclass.volumes import Volume


@dataclass(frozen=True)
class PreparedPlane:
    """One plane ready for the bank.

    Attributes
    ----------
    image : numpy.ndarray
        (ny, nx) float32, finite.
    filled : numpy.ndarray or None
        (ny, nx) bool, True where a non-finite voxel was replaced; None if there was none.
    missing : bool
        The plane could not be read and holds zeros (``allow_missing_planes``): neither train on it nor label it.
    outside : numpy.ndarray or None
        (ny, nx) bool, True where voxels are not asked for: their values count for their neighbours' features only.
    notes : tuple of str
        Sentences for the user.
    """

    image: np.ndarray
    filled: np.ndarray | None = None
    missing: bool = False
    outside: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedSlab:
    """Planes of a volume ready for the bank, with those that their features look at.

    Attributes
    ----------
    planes : sequence of PreparedPlane
        All of the slab. The image of one that could not be read is that of the nearest that could, where features look
        across planes.
    place : Place
        Where they lie in the volume, and which of them are wanted.
    """

    planes: Sequence[PreparedPlane]
    place: Place

    @property
    def wanted(self) -> Sequence[PreparedPlane]:
        """The planes whose features are wanted."""
        return self.planes[self.place.wanted]

    @property
    def images(self) -> list[np.ndarray]:
        """Of all planes: (ny, nx) float32."""
        return [plane.image for plane in self.planes]

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the wanted planes."""
        return tuple(note for plane in self.wanted for note in plane.notes)

    def part(self, start: int, stop: int, *, halo: int) -> PreparedSlab:
        """Wanted planes ``start`` to ``stop - 1`` (positions in the volume), with this halo."""
        place = self.place.part(start, stop, halo=halo)
        low = place.first - self.place.first
        return PreparedSlab(self.planes[low : low + place.n_planes], place)


def prepare_slab(
    volume: Volume,
    start: int,
    stop: int,
    *,
    halo: int = 0,
    scale: IntensityScale,
    nan: str = "error",
    held: MutableMapping[int, PreparedPlane] | None = None,
) -> PreparedSlab:
    """Read and prepare planes ``start`` to ``stop - 1`` and up to ``halo`` planes on both sides of them.

    Parameters
    ----------
    volume : Volume
        The size of its voxels goes into the slab's place.
    start, stop, halo : int
    scale, nan
        See :func:`prepare_plane`.
    held : dict, optional
        Planes prepared before, by position; gets those of this slab and loses those before it.

    Raises
    ------
    DataError
        See :func:`prepare_plane`.
    """
    aspect = aspect_of(volume.voxel_size)
    place = Place.with_halo(start, stop, depth=volume.shape[0], halo=halo, aspect=aspect)
    held = {} if held is None else held
    positions = range(place.first, place.first + place.n_planes)
    for z in [z for z in held if z < place.first]:
        del held[z]
    for z in positions:
        if z not in held:
            held[z] = prepare_plane(volume, z, scale=scale, nan=nan)
    planes = [held[z] for z in positions]
    if halo:
        for i, plane in enumerate(planes):
            if plane.missing:
                planes[i] = replace(plane, image=_nearest_image(volume, place.first + i, held, scale=scale, nan=nan))
    return PreparedSlab(planes, place)


def _nearest_image(
    volume: Volume, z: int, held: MutableMapping[int, PreparedPlane], *, scale: IntensityScale, nan: str
) -> np.ndarray:
    """The image of the nearest plane that can be read, the one before if there are two; zeros if there is none."""
    depth = volume.shape[0]
    for other in (other for d in range(1, depth) for other in (z - d, z + d) if 0 <= other < depth):
        plane = held.get(other) or prepare_plane(volume, other, scale=scale, nan=nan)
        if not plane.missing:
            return plane.image
    return np.zeros(volume.shape[1:], np.float32)


def check_nan_policy(nan: str) -> None:
    """Raise UsageError unless it is one of the policies for voxels that are not finite."""
    if nan not in NAN_POLICIES:
        raise UsageError(f"the policy for NaN {nan!r} is unknown", do=f"choose one of {', '.join(NAN_POLICIES)}")


def prepare_plane(volume: Volume, z: int, *, scale: IntensityScale, nan: str = "error") -> PreparedPlane:
    """Read plane ``z``, deal with non-finite voxels, apply the scale.

    Parameters
    ----------
    volume : Volume
    z : int
        Plane index.
    scale : IntensityScale
    nan : {"error", "fill", "mask"}
        ``"fill"`` and ``"mask"`` give a non-finite voxel the value of the nearest finite one in its plane; for
        ``"mask"`` the caller also unlabels what the voxel influenced (:attr:`PreparedPlane.filled`).

    Raises
    ------
    DataError
        If voxels are not finite and the policy is ``"error"``, or no voxel of the plane is finite, or values exceed
        float32.
    """
    check_nan_policy(nan)
    plane = volume.plane(z)
    if z in volume.missing_planes:
        return PreparedPlane(np.zeros(plane.shape, np.float32), missing=True)
    notes = []
    filled = None
    if plane.dtype.kind == "f":
        bad = ~np.isfinite(plane)
        if bad.any():
            if nan == "error":
                raise _non_finite_error(volume, z, bad)
            if bad.all():
                raise DataError(f"plane {z} has no finite voxel", where=volume.path, do="leave it out with --planes")
            plane, filled = plane[nearest_finite(bad)], bad
            notes.append(f"plane {z}: {int(bad.sum())} non-finite voxels took the value of their nearest neighbour")
    low, high = float(plane.min()), float(plane.max())
    if plane.dtype.kind in "iu" and plane.dtype.itemsize > 2 and max(-low, high) > EXACT_IN_FLOAT32:
        notes.append(f"plane {z}: values beyond 2^24 ({low:.0f}..{high:.0f}) lose precision in float32")
    if low == high:
        notes.append(f"plane {z} is constant ({low:g}): every pixel will get the same class")
    with np.errstate(over="ignore"):
        image = scale.apply(plane)
    if not np.isfinite(image).all():
        raise DataError(
            f"plane {z} has values beyond float32 ({low:g}..{high:g})", where=volume.path, do="use --intensity auto"
        )
    return PreparedPlane(image, filled, notes=tuple(notes))


def nearest_finite(bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, each (ny, nx), of the voxel nearest to each that is not ``bad`` (ny, nx)."""
    from scipy import ndimage

    y, x = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    return y, x


def _non_finite_error(volume: Volume, z: int, bad: np.ndarray) -> DataError:
    """Counts the whole volume first: the reader needs to know whether it is one voxel or a third of the planes."""
    y, x = (int(i[0]) for i in np.nonzero(bad))
    per_plane = {i: int((~np.isfinite(other)).sum()) for i, other in volume.planes()}
    affected = [i for i, n in per_plane.items() if n]
    listed = ", ".join(map(str, affected[:10])) + (", .." if len(affected) > 10 else "")
    return DataError(
        f"{sum(per_plane.values())} voxels are NaN or infinite, in {len(affected)} of {volume.shape[0]} planes "
        f"({listed}); the first met is z={z}, y={y}, x={x}",
        where=volume.path,
        do="--nan fill replaces them by their nearest neighbour, --nan mask also leaves their surroundings unlabelled",
    )
