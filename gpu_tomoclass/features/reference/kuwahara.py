"""Linear Kuwahara filter: the mean along the calmest line segment through each pixel.

Follows TWS's ``Kuwahara`` (by Christian Tischer) operation by operation, in float32, so results agree in every bit.
"""

from __future__ import annotations

import math

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

N_ANGLES = 10
N_CRITERIA = 3
MARGIN = 3  # the line is rotated in a square this much larger on each side, so that its ends survive
SMALLEST = np.float32(1.401298464324817e-45)  # Java's Float.MIN_VALUE, keeps 0 / 0 away
LARGEST = np.finfo(np.float32).max


def kuwahara(source: FeatureSource, *, patch: int) -> np.ndarray:
    """Mean of the calmest of all lines through each pixel: 10 directions, shifted along the line.

    Calm is a small variance (criterion 0), variance / mean (1) or variance / mean^2 (2), after subtraction of the
    plane's minimum. Edges repeat the edge pixel. **0.5 is added** to the result, as TWS does for float images too; a
    constant plane c gives c + 0.5.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).
    patch : int
        Length of the line in pixels. If it is even, TWS leaves the plane as it is, and so does this function.

    Returns
    -------
    ndarray
        (3, ny, nx) float32, one channel for each criterion.
    """
    image = source.image
    if patch % 2 == 0:
        return np.repeat(image[np.newaxis], N_CRITERIA, axis=0)
    low = image.min()
    lowered = image - low
    result = np.zeros((N_CRITERIA, *image.shape), dtype=np.float32)
    smallest = np.full_like(result, LARGEST)
    for line in line_offsets(patch):
        mean, variance = _line_statistics(lowered, line, patch)
        for criterion in range(N_CRITERIA):
            restlessness = _restlessness(mean, variance, criterion)
            calmest, value = _calmest_on_line(restlessness, mean, line, patch)
            better = calmest < smallest[criterion]
            np.copyto(smallest[criterion], calmest, where=better)
            np.copyto(result[criterion], value, where=better)
    result += np.float32(0.5)
    result += low
    return result


def line_offsets(patch: int) -> list[list[tuple[int, int]]]:
    """Pixels (dy, dx) from the centre of each of the 10 lines, in row order.

    A vertical line, one pixel wide, rotated by 0, 18, ... 162 degrees with nearest-neighbour sampling and transposed.
    """
    side = patch + 2 * MARGIN
    middle = (side - 1) / 2.0
    half = patch // 2
    lines = []
    for step in range(N_ANGLES):
        angle = -math.radians(step * (180 // N_ANGLES))
        cos, sin = math.cos(angle), math.sin(angle)
        line = []
        for row in range(-half, half + 1):
            for column in range(-half, half + 1):
                # Stored transposed: the kernel's row is the rotated picture's x.
                x, y = row, column
                from_x, from_y = x * cos - y * sin + middle, x * sin + y * cos + middle
                inside = -0.01 <= from_x < side and -0.01 <= from_y < side
                if inside and min(int(from_x + 0.5), side - 1) == (side - 1) // 2:
                    line.append((row, column))
        lines.append(line)
    return lines


def _shifted(padded: np.ndarray, offset: tuple[int, int], half: int) -> np.ndarray:
    """View of a plane padded by ``half``, shifted by (dy, dx)."""
    dy, dx = offset
    ny, nx = padded.shape[0] - 2 * half, padded.shape[1] - 2 * half
    return padded[half + dy : half + dy + ny, half + dx : half + dx + nx]


def _line_statistics(lowered: np.ndarray, line: list[tuple[int, int]], patch: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance along the line centred on each pixel, summed tap by tap in float32."""
    half = patch // 2
    padded = np.pad(lowered, half, mode="edge")
    squares = padded * padded
    total, total_squares = np.zeros_like(lowered), np.zeros_like(lowered)
    for offset in line:
        total += _shifted(padded, offset, half)
        total_squares += _shifted(squares, offset, half)
    n = np.float32(len(line))
    mean = total / n
    return mean, total_squares / n - mean * mean


def _restlessness(mean: np.ndarray, variance: np.ndarray, criterion: int) -> np.ndarray:
    """The figure whose minimum is sought."""
    if criterion == 0:
        return variance
    with np.errstate(over="ignore", invalid="ignore"):  # infinity or NaN is never the smallest
        return variance / ((mean if criterion == 1 else mean * mean) + SMALLEST)


def _calmest_on_line(
    restlessness: np.ndarray, mean: np.ndarray, line: list[tuple[int, int]], patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest figure among the line's positions, and the mean there; the first in row order wins."""
    half = patch // 2
    figures, means = np.pad(restlessness, half, mode="edge"), np.pad(mean, half, mode="edge")
    calmest, value = np.full_like(mean, LARGEST), mean.copy()
    for offset in line:
        figure = _shifted(figures, offset, half)
        better = figure < calmest
        np.copyto(calmest, figure, where=better)
        np.copyto(value, _shifted(means, offset, half), where=better)
    return calmest, value
