"""Neighbors: the plane shifted to its eight neighbours at a distance.

Source: ``trainableSegmentation.FeatureStack.getNeighbors`` of TWS 4.0.0.
"""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(x, y) of the neighbours in channel order."""


def neighbors(source: FeatureSource, *, distance: int) -> np.ndarray:
    """``Neighbors``: the value ``distance`` pixels away in eight directions; edges mirror without repeating the edge.

    A coordinate is mirrored at 0, then at the far edge; where that still lies outside (planes of ``distance`` pixels
    and less) the value is missing, NaN, as in TWS.

    Returns
    -------
    ndarray
        (8, ny, nx) float32.
    """
    image = source.image
    ny, nx = image.shape
    result = np.empty((8, ny, nx), dtype=np.float32)
    for channel, (dx, dy) in enumerate(DIRECTIONS):
        y, y_inside = _mirrored(ny, dy * distance)
        x, x_inside = _mirrored(nx, dx * distance)
        result[channel] = image[np.ix_(y, x)]
        result[channel, ~y_inside] = np.nan
        result[channel, :, ~x_inside] = np.nan
    return result


def _mirrored(length: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the shifted samples, mirrored at either end and then limited, and whether they needed no limit."""
    index = np.abs(np.arange(length) + shift)
    index = np.where(index >= length, 2 * (length - 1) - index, index)
    return np.clip(index, 0, length - 1), (index >= 0) & (index < length)
