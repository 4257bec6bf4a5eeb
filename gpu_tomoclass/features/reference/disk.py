"""D(r): the disk of ImageJ's rank filters (``RankFilters.makeLineRadii`` of ImageJ 1.54)."""

from __future__ import annotations

import math

import numpy as np


def disk_half_widths(radius: float) -> list[int]:
    """Half-length of each row of the disk, from the top row to the bottom row; rows are 2 h + 1 pixels long.

    Radius 1 is the whole 3 x 3 square: 9 pixels; 2: 21, 4: 57, 8: 213, 16: 805.
    """
    # ImageJ keeps the sizes that an older version gave at these radii.
    if 1.5 <= radius < 1.75:
        radius = 1.75
    elif 2.5 <= radius < 2.85:
        radius = 2.85
    square = int(radius * radius) + 1
    height = int(math.sqrt(square + 1e-10))
    return [int(math.sqrt(square - y * y + 1e-10)) for y in range(-height, height + 1)]


def disk_footprint(radius: float) -> np.ndarray:
    """The disk as a boolean (2 H + 1, 2 H + 1) array."""
    widths = np.array(disk_half_widths(radius))
    column = np.abs(np.arange(len(widths)) - len(widths) // 2)
    return column[np.newaxis, :] <= widths[:, np.newaxis]
