"""From stored voxel values to the values that features see: the only place where values change before the bank.

Integer volumes enter as they are, as in Fiji. Signed 16-bit voxels get +32768, which is how ImageJ holds them. Float
volumes get a linear scale, because several Weka features truncate to integers (anisotropic diffusion) or count grey
levels; the scale is robust (percentiles), clipped to 0..65535 and recorded, so that a model repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volume import Volume

INTENSITY_MODES = ("auto", "none")
NAN_POLICIES = ("error", "fill", "mask")

# 0.5 % tails keep single hot voxels from setting the scale; 10 % head room on either side keeps those tails distinct.
PERCENTILES = (0.5, 99.5)
TARGET = (6553.5, 58981.5)  # 10 % and 90 % of 65535
CLIP = (0.0, 65535.0)
N_SAMPLED_PLANES = 16
EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True)
class IntensityScale:
    """``value * gain + offset``, clipped to ``clip`` where given; recorded in every model.

    Attributes
    ----------
    kind : str
        ``"as-is"``, ``"signed-16-bit"`` (offset 32768) or ``"percentile"``.
    gain, offset : float
        Applied in float64, the result is rounded to float32.
    clip : tuple of float or None
        Limits of the result.
    """

    kind: str = "as-is"
    gain: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None

    def apply(self, plane: np.ndarray) -> np.ndarray:
        """float32 plane (ny, nx) as the features see it."""
        if self.kind == "as-is":
            return np.ascontiguousarray(plane, dtype=np.float32)
        values = plane.astype(np.float64) * self.gain + self.offset
        if self.clip is not None:
            np.clip(values, *self.clip, out=values)
        return values.astype(np.float32)

    def describe(self) -> str:
        """One phrase for people."""
        if self.kind == "percentile" and self.clip:
            return f"value x {self.gain:.6g} + {self.offset:.6g}, clipped to {self.clip[0]:g}..{self.clip[1]:g}"
        return "value + 32768 (signed 16 bit, as ImageJ)" if self.kind == "signed-16-bit" else "values as stored"

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "gain": self.gain,
            "offset": self.offset,
            "clip": list(self.clip) if self.clip else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IntensityScale:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        ModelError
            Naming the field that is missing, of a wrong type or not finite.
        """
        try:
            clip = data["clip"]
            scale = cls(
                kind=data["kind"],
                gain=float(data["gain"]),
                offset=float(data["offset"]),
                clip=None if clip is None else (float(clip[0]), float(clip[1])),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(f"intensity scale is not readable ({error!r})") from error
        if scale.kind not in ("as-is", "signed-16-bit", "percentile"):
            raise ModelError(f"intensity scale has the unknown kind {scale.kind!r}")
        numbers = (scale.gain, scale.offset, *(scale.clip or ()))
        if not np.all(np.isfinite(numbers)):
            raise ModelError(f"intensity scale holds a non-finite number: {numbers}")
        return scale

    @classmethod
    def for_volume(cls, volume: Volume, *, mode: str = "auto") -> IntensityScale:
        """The scale for a volume: nothing for integers, +32768 for int16, percentiles of sampled planes for floats.

        Parameters
        ----------
        volume : Volume
            Up to 16 planes, evenly spaced, are read where the voxels are floats.
        mode : {"auto", "none"}
            ``"none"`` leaves every value as stored.

        Raises
        ------
        UsageError
            If the mode is unknown.
        DataError
            If the voxels are neither integers nor floats, or no sampled voxel is finite.
        """
        if mode not in INTENSITY_MODES:
            raise UsageError(f"intensity mode {mode!r} is unknown", do=f"choose one of {', '.join(INTENSITY_MODES)}")
        if volume.dtype.kind not in "iuf":
            raise DataError(f"voxels are {volume.dtype}, not integers or floats", where=volume.path)
        if mode == "none" or (volume.dtype.kind in "iu" and volume.dtype != np.int16):
            return cls()
        if volume.dtype == np.int16:
            return cls(kind="signed-16-bit", offset=32768.0)
        sampled = np.unique(np.linspace(0, volume.shape[0] - 1, N_SAMPLED_PLANES).astype(int))
        values = np.concatenate([_finite(volume.plane(int(z))) for z in sampled])
        if values.size == 0:
            raise DataError(f"no finite voxel in {sampled.size} sampled planes", where=volume.path)
        low, high = np.percentile(values, PERCENTILES)
        if not high > low:  # constant: any gain will do
            return cls(kind="percentile", gain=1.0, offset=TARGET[0] - float(low), clip=CLIP)
        gain = float((TARGET[1] - TARGET[0]) / (high - low))
        return cls(kind="percentile", gain=gain, offset=float(TARGET[0] - gain * low), clip=CLIP)


def _finite(plane: np.ndarray) -> np.ndarray:
    values = plane.astype(np.float64).ravel()
    return values[np.isfinite(values)]


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
    notes : tuple of str
        Sentences for the user.
    """

    image: np.ndarray
    filled: np.ndarray | None = None
    missing: bool = False
    notes: tuple[str, ...] = ()


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
    if nan not in NAN_POLICIES:
        raise UsageError(f"the policy for NaN {nan!r} is unknown", do=f"choose one of {', '.join(NAN_POLICIES)}")
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
            plane, filled = _fill(plane, bad), bad
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


def _fill(plane: np.ndarray, bad: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    return plane[tuple(nearest)]


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
