"""Where the borders of classes lie: distance from found to true borders, and the halo along an outer border.

Both are taken plane by plane in two dimensions, as the images were made, and added up over planes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.labels.image_tools import CpuTools, ImageTools
from gpu_tomoclass.volumes import VoxelSize

HALO_DISTANCE = 4.0  # pixels


class BoundaryDistances:
    """Distances from the border of each class in the labels to the nearest border of that class in the truth.

    A border pixel of a class has one of its four neighbours in another class; neither the border of the plane nor
    ignored pixels make one. Distances go from centre to centre of pixels in the same plane, so 0 is perfect. Distances
    from the truth to the labels are not counted: what was missed altogether shows in the recall.

    Parameters
    ----------
    voxel_size : (z, y, x) in nm, optional
        Distances are in nm too where it is known.
    tools : ImageTools, optional
        What computes distances; default the CPU's.
    """

    def __init__(self, voxel_size: VoxelSize | None = None, *, tools: ImageTools | None = None) -> None:
        self._distances = (tools or CpuTools()).distances
        self._pixel = None if voxel_size is None else voxel_size[1:]
        self._found: dict[int, dict[str, _Distances]] = {}
        self._lost: dict[int, int] = {}

    def update(self, truth: np.ndarray, labels: np.ndarray, *, mask: np.ndarray | None = None) -> None:
        """Add a plane: (ny, nx) uint8 each; only pixels where the bool ``mask`` is True count."""
        for value in np.union1d(truth, labels).tolist():
            border = class_border(labels, value, mask=mask)
            if not border.any():
                continue
            true_border = class_border(truth, value, mask=mask)
            if not true_border.any():
                self._lost[value] = self._lost.get(value, 0) + int(border.sum())
                continue
            units = self._found.setdefault(value, {"pixels": _Distances(), "nm": _Distances()})
            away = self._distances(~true_border)[border]
            units["pixels"].add(away)
            if self._pixel is not None:
                y, x = self._pixel
                units["nm"].add(away * y if x == y else self._distances(~true_border, sampling=(y, x))[border])

    def of(self, value: int) -> dict[str, Any]:
        """Distances of one class: ``mean``, ``p95`` (95 % are not farther) by unit, and ``lost``.

        Returns
        -------
        dict
            ``pixels`` and ``nm``: {"mean", "p95"} or None where unknown; ``lost``: border pixels on planes whose truth
            has no border of the class, which have no distance.
        """
        units = self._found.get(value, {})
        found = {unit: units[unit].summary() if unit in units else None for unit in ("pixels", "nm")}
        return {**found, "lost": self._lost.get(value, 0)}


class HaloShare:
    """Share of the pixels beside an outer border that were given to other classes, such as the halo of a smooth edge.

    Along the border between a solid class and the background the grey value passes through those of the classes
    between, so thresholds label a rim of them there. Counted are pixels that truly are of one of the two classes and
    lie within a distance of the other; the share is that of pixels labelled as neither.

    Parameters
    ----------
    solid, background : int
        Label values of the outermost solid class and of what surrounds it.
    distance : float
        In pixels from centre to centre.
    tools : ImageTools, optional
        What computes distances; default the CPU's.
    """

    def __init__(
        self, solid: int, background: int, *, distance: float = HALO_DISTANCE, tools: ImageTools | None = None
    ) -> None:
        self._distances = (tools or CpuTools()).distances
        if solid == background:
            raise UsageError(f"a halo lies between two classes, not between {solid} and itself")
        if not distance >= 1:
            raise UsageError(f"a halo of {distance} pixels", do="use 1 or more")
        self.solid, self.background, self.distance = solid, background, float(distance)
        self.pixels = self.other = 0

    def update(self, truth: np.ndarray, labels: np.ndarray, *, mask: np.ndarray | None = None) -> None:
        """Add a plane: (ny, nx) uint8 each; only pixels where the bool ``mask`` is True count."""
        pair = (self.solid, self.background)
        for here, there in (pair, pair[::-1]):
            opposite = truth == there
            if not opposite.any():
                continue
            near = (truth == here) & (self._distances(~opposite) <= self.distance)
            if mask is not None:
                near &= mask
            found = labels[near]
            self.pixels += found.size
            # 0 is "not classified" unless it is one of the two
            self.other += int(((found != here) & (found != there) & (found != 0)).sum())

    @property
    def share(self) -> float:
        """Between 0 and 1; NaN where the two classes do not meet."""
        return self.other / self.pixels if self.pixels else float("nan")


def class_border(labels: np.ndarray, value: int, *, mask: np.ndarray | None = None) -> np.ndarray:
    """Pixels of a class with one of their four neighbours in another: (ny, nx) bool.

    Where ``mask`` is False, a pixel is none and makes none.
    """
    inside = labels == value
    border = np.zeros(labels.shape, bool)
    for here, there in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        change = inside[here] != inside[there]
        if mask is not None:
            change &= mask[here] & mask[there]
        border[here] |= change
        border[there] |= change
    return border & inside


class _Distances:
    """Many distances of which few differ: kept as counts, so percentiles are exact and memory is small."""

    def __init__(self) -> None:
        self._values, self._counts = np.empty(0), np.empty(0, np.int64)

    def add(self, distances: np.ndarray) -> None:
        values, counts = np.unique(distances, return_counts=True)
        merged, place = np.unique(np.concatenate((self._values, values)), return_inverse=True)
        total = np.zeros(len(merged), np.int64)
        np.add.at(total, place, np.concatenate((self._counts, counts)))
        self._values, self._counts = merged, total

    def summary(self) -> dict[str, float] | None:
        n = int(self._counts.sum())
        if n == 0:
            return None
        last = np.searchsorted(np.cumsum(self._counts), 0.95 * n)
        return {"mean": float(self._values @ self._counts / n), "p95": float(self._values[last])}
