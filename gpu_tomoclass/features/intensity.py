"""Scale stored voxel values to those that features see: the only place where values change before the bank.

Integer volumes enter as they are, as in Fiji. Signed 16-bit voxels get +32768, which is how ImageJ holds them. Float
volumes get a linear scale, because several Weka features truncate to integers (anisotropic diffusion) or count grey
levels; the scale is robust (percentiles), clipped to 0..65535 and recorded, so that a model repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volumes import Volume

INTENSITY_MODES = ("auto", "none")
NAN_POLICIES = ("error", "fill", "mask")

# 0.5 % tails keep single hot voxels from setting the scale; 10 % head room on either side keeps those tails distinct.
PERCENTILES = (0.5, 99.5)
TARGET = (6553.5, 58981.5)  # 10 % and 90 % of 65535
CLIP = (0.0, 65535.0)
N_SAMPLED_PLANES = 16
EXACT_IN_FLOAT32 = 2**24
MAX_POINTS = 1024
ROWS = 256  # that are scaled at a time


@dataclass(frozen=True)
class IntensityScale:
    """``value * gain + offset``, clipped to ``clip`` where given, then mapped where the model was adapted to another
    volume; recorded in every model.

    Attributes
    ----------
    kind : str
        ``"as-is"``, ``"signed-16-bit"`` (offset 32768), ``"percentile"``, or ``"mapped"``: with ``points``.
    gain, offset : float
        Applied in float64, the result is rounded to float32.
    clip : tuple of float or None
        Limits of the result.
    points : tuple of (float, float)
        What values become: straight lines between these (from, to), rising in both; beyond the ends the end's.
    """

    kind: str = "as-is"
    gain: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()

    def apply(self, plane: np.ndarray) -> np.ndarray:
        """float32 plane (ny, nx) as the features see it."""
        if self.kind == "as-is":
            return np.ascontiguousarray(plane, dtype=np.float32)
        scaled = np.empty(plane.shape, np.float32)
        for first in range(0, len(plane), ROWS):  # in double, without a whole plane of them
            rows = slice(first, first + ROWS)
            values = plane[rows].astype(np.float64) * self.gain + self.offset
            if self.clip is not None:
                np.clip(values, *self.clip, out=values)
            scaled[rows] = np.interp(values, *np.transpose(self.points)) if self.points else values
        return scaled

    def describe(self) -> str:
        """One phrase for people."""
        if self.points:
            ends = (
                f"{self.points[0][0]:.6g}..{self.points[-1][0]:.6g}",
                f"{self.points[0][1]:.6g}..{self.points[-1][1]:.6g}",
            )
            return f"adapted: {ends[0]} become {ends[1]}, by {len(self.points)} points"
        if self.kind == "percentile" and self.clip:
            return f"value x {self.gain:.6g} + {self.offset:.6g}, clipped to {self.clip[0]:g}..{self.clip[1]:g}"
        return "value + 32768 (signed 16 bit, as ImageJ)" if self.kind == "signed-16-bit" else "values as stored"

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "gain": self.gain,
            "offset": self.offset,
            "clip": list(self.clip) if self.clip else None,
            **({"points": [list(point) for point in self.points]} if self.points else {}),
        }

    def mapped(self, points: Sequence[tuple[float, float]]) -> IntensityScale:
        """This scale, and then a map of values."""
        return replace(self, kind="mapped", points=tuple((float(a), float(b)) for a, b in points))

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
                points=tuple((float(a), float(b)) for a, b in data.get("points", ())),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(f"intensity scale is not readable ({error!r})") from error
        if scale.kind not in ("as-is", "signed-16-bit", "percentile", "mapped"):
            raise ModelError(f"intensity scale has the unknown kind {scale.kind!r}")
        if (scale.kind == "mapped") != (2 <= len(scale.points) <= MAX_POINTS):
            raise ModelError(f"intensity scale of kind {scale.kind!r} has {len(scale.points)} points")
        numbers = (scale.gain, scale.offset, *(scale.clip or ()), *np.ravel(scale.points).tolist())
        if not np.all(np.isfinite(numbers)):
            raise ModelError(f"intensity scale holds a non-finite number: {numbers}")
        if scale.points and (np.diff(scale.points, axis=0) < [[1e-300, 0]]).any():
            raise ModelError("the points of the intensity scale do not rise")
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
        known = cls.of_type(volume.dtype, mode=mode, where=volume.path)
        if known is not None:
            return known
        sampled = sampled_planes(volume.shape[0])
        values = np.concatenate([_finite(volume.plane(z)) for z in sampled])
        if values.size == 0:
            raise DataError(f"no finite voxel in {len(sampled)} sampled planes", where=volume.path)
        return cls.of_range(*np.percentile(values, PERCENTILES))

    @classmethod
    def of_type(cls, dtype: np.dtype[Any], *, mode: str, where: str) -> IntensityScale | None:
        """The scale where the type of the voxels settles it; None where percentiles must be measured."""
        if mode not in INTENSITY_MODES:
            raise UsageError(f"intensity mode {mode!r} is unknown", do=f"choose one of {', '.join(INTENSITY_MODES)}")
        if dtype.kind not in "iuf":
            raise DataError(f"voxels are {dtype}, not integers or floats", where=where)
        if mode == "none" or (dtype.kind in "iu" and dtype != np.int16):
            return cls()
        return cls(kind="signed-16-bit", offset=32768.0) if dtype == np.int16 else None

    @classmethod
    def of_range(cls, low: float, high: float) -> IntensityScale:
        """The scale that takes the two percentiles to 10 % and 90 % of 65535."""
        if not high > low:  # constant: any gain will do
            return cls(kind="percentile", gain=1.0, offset=TARGET[0] - float(low), clip=CLIP)
        gain = float((TARGET[1] - TARGET[0]) / (high - low))
        return cls(kind="percentile", gain=gain, offset=float(TARGET[0] - gain * low), clip=CLIP)


def sampled_planes(depth: int) -> list[int]:
    """Numbers of the planes whose values are looked at: up to 16, evenly spaced."""
    return [int(z) for z in np.unique(np.linspace(0, depth - 1, N_SAMPLED_PLANES).astype(int))]


def _finite(plane: np.ndarray) -> np.ndarray:
    values = plane.astype(np.float64).ravel()
    return values[np.isfinite(values)]
