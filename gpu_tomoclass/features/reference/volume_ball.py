"""B(s): the ellipsoid of voxels over which ImageJ's 3-D rank filters look.

Source: ``ij.plugin.Filters3D`` and ``ij.process.StackProcessor.filter3D`` of ImageJ 1.54.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpu_tomoclass.features.reference.volume_source import Aspect


class BallRow(NamedTuple):
    """The voxels x - width .. x + width of the row at (z + dz, y + dy)."""

    dz: int
    dy: int
    width: int


def ball_radius(sigma: float, aspect: float = 1.0) -> float:
    """Radius in voxels along an axis of this aspect: float32."""
    return float(np.float32(sigma * aspect))


def ball_reach(sigma: float, aspect: float = 1.0) -> int:
    """Half-size in voxels of the box around the ball."""
    return math.ceil(ball_radius(sigma, aspect))


def ball_rows(sigma: float, aspect: Aspect) -> tuple[BallRow, ...]:
    """The rows of the ball, in the order z, y.

    A voxel (i, j, k) from the centre along x, y, z belongs to it if i^2 / rx^2 + j^2 / ry^2 + k^2 / rz^2 <= 1; the
    squares of radii are float32, all else is double.
    """
    radii = [np.float32(ball_radius(sigma, c)) for c in aspect.axes]
    share_z, share_y, share_x = (1.0 / float(r * r) if r != 0 else 0.0 for r in radii)
    half_z, half_y, half_x = (math.ceil(r) for r in radii)
    rows = []
    for dz in range(-half_z, half_z + 1):
        for dy in range(-half_y, half_y + 1):
            inside = [
                dx for dx in range(half_x + 1) if dx * dx * share_x + dy * dy * share_y + dz * dz * share_z <= 1.0
            ]
            if inside:
                rows.append(BallRow(dz, dy, inside[-1]))
    return tuple(rows)


def ball_size(rows: tuple[BallRow, ...]) -> int:
    """Voxels of a ball."""
    return sum(2 * row.width + 1 for row in rows)
