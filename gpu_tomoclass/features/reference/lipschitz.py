"""Lipschitz cover, subtracted ("top hat"): what is darker than a cone of given slope from any brighter place nearby.

Follows TWS's ``Lipschitz_`` (a plugin by Mikulas Stencel and Jiri Janacek) in whole numbers, so results are exact.
"""

from __future__ import annotations

import math

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

SLOPES = (5, 10, 15, 20, 25)
"""Grey levels per pixel; a diagonal step costs int(slope * sqrt(2)): 7, 14, 21, 28, 35."""


def lipschitz(source: FeatureSource) -> np.ndarray:
    """255 minus the depth of each pixel below the Lipschitz cover of the plane.

    Works on :meth:`FeatureSource.bytes_display`. The cover is the lowest image above the plane that falls by at most
    ``slope`` per pixel along rows and columns and int(slope sqrt(2)) along diagonals. Nothing outside the plane counts.
    A constant plane gives 255.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).

    Returns
    -------
    ndarray
        (5, ny, nx) float32, whole numbers 0..255, one channel for each of :data:`SLOPES`.
    """
    grey = source.bytes_display().astype(np.int32)
    slope = np.array(SLOPES, dtype=np.int32)[:, np.newaxis]
    diagonal = (slope * math.sqrt(2.0)).astype(np.int32)
    cover = np.repeat(grey[np.newaxis], len(SLOPES), axis=0)
    _sweep(cover, slope, diagonal)
    _sweep(cover[:, ::-1, ::-1], slope, diagonal)
    return (grey - cover + 255).astype(np.float32)


def _sweep(cover: np.ndarray, slope: np.ndarray, diagonal: np.ndarray) -> None:
    """One raster sweep in place, (n_slopes, ny, nx): raise each pixel to what its left and upper neighbours demand.

    Going right along a row, ``new[x] = max(start[x], new[x - 1] - slope)`` equals the running maximum of
    ``start[x] + slope x`` minus ``slope x``: exact, as all are whole numbers.
    """
    _, ny, nx = cover.shape
    ramp = slope * np.arange(nx, dtype=np.int32)
    for y in range(ny):
        # The plugin takes row 0 as the row above row 0. In the end that changes nothing, because a step along the row
        # costs less than a diagonal one.
        above = cover[:, max(y - 1, 0)].copy()
        row = cover[:, y]
        np.maximum(row, above - slope, out=row)
        np.maximum(row[:, 1:], above[:, :-1] - diagonal, out=row[:, 1:])
        np.maximum(row[:, :-1], above[:, 1:] - diagonal, out=row[:, :-1])
        row[:] = np.maximum.accumulate(row + ramp, axis=1) - ramp
