"""A scripted operator: strokes painted as a person would, for demonstrations and benchmarks with a known truth.

A label plane holds 1..k where it is painted and 0 elsewhere. The truth is used only for where a stroke may lie.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.draw import line

TRIES = 60  # stroke positions tried before taking the longest
MARGIN = 2  # pixels that a person keeps away from a border, where there is room
ROOM = 20  # pixels that must remain inside that margin
LEAST_SHARE = 0.05  # of a place: less of a class is not marked there


def draw_strokes(truth: np.ndarray, *, per_class: int = 3, length: int = 24, seed: int = 0) -> np.ndarray:
    """Straight one-pixel strokes inside each class of a plane.

    Parameters
    ----------
    truth : numpy.ndarray
        (ny, nx) class values 1..255; 0 is never painted.
    per_class : int
        Strokes for each class that the plane shows.
    length : int
        Pixels that a stroke aims at; it ends where the class ends.
    seed : int

    Returns
    -------
    numpy.ndarray
        (ny, nx) uint8.
    """
    rng = np.random.default_rng(seed)
    painted = np.zeros(truth.shape, dtype=np.uint8)
    for value in np.unique(truth[truth > 0]):
        region = truth == value
        inner = ndimage.binary_erosion(region, iterations=MARGIN, border_value=1)
        for _ in range(per_class):
            _paint(painted, inner if inner.sum() > ROOM else region, value=int(value), length=length, rng=rng)
    return painted


def correction_strokes(
    truth: np.ndarray,
    predicted: np.ndarray,
    painted: np.ndarray,
    *,
    n: int = 12,
    length: int = 20,
    seed: int = 0,
) -> np.ndarray:
    """Strokes on the largest areas that a prediction got wrong, as a person corrects.

    Parameters
    ----------
    truth, predicted, painted : numpy.ndarray
        (ny, nx) class values; ``painted`` holds the strokes so far.
    n : int
        Areas to correct, one stroke each, in the class that most of the area is.
    length : int
        Pixels that a stroke aims at; it stays inside the area.
    seed : int

    Returns
    -------
    numpy.ndarray
        (ny, nx) uint8: the strokes so far and the new ones.
    """
    rng = np.random.default_rng(seed)
    result = painted.astype(np.uint8)
    areas, n_areas = ndimage.label((predicted != truth) & (truth > 0), np.ones((3, 3)))
    sizes = np.bincount(areas.ravel(), minlength=n_areas + 1)[1:]
    for area in np.argsort(-sizes, kind="stable")[:n] + 1:
        inside = areas == area
        value = int(np.bincount(truth[inside]).argmax())
        _paint(result, inside & (truth == value), value=value, length=length, rng=rng)
    return result


def place_strokes(truth: np.ndarray, painted: np.ndarray, *, length: int = 10, seed: int = 0) -> np.ndarray:
    """Strokes in a suggested place: a short one in each class that is there, right or wrong.

    Who marks only what is wrong teaches a forest that borders and noise are most of the specimen.

    Parameters
    ----------
    truth, painted : numpy.ndarray
        (height, width) class values of the place; ``painted`` holds the strokes so far.
    length : int
        Pixels that a stroke aims at.
    seed : int

    Returns
    -------
    numpy.ndarray
        (height, width) uint8: the strokes so far and the new ones.
    """
    rng = np.random.default_rng(seed)
    result = painted.astype(np.uint8)
    for value in np.unique(truth[truth > 0]):
        region = truth == value
        if region.mean() >= LEAST_SHARE:
            inner = ndimage.binary_erosion(region, border_value=1)
            _paint(result, inner if inner.any() else region, value=int(value), length=length, rng=rng)
    return result


def _paint(painted: np.ndarray, region: np.ndarray, *, value: int, length: int, rng: np.random.Generator) -> None:
    """One stroke into ``painted``: the longest run inside ``region`` of some random straight lines."""
    ys, xs = np.nonzero(region)
    best: tuple[np.ndarray, np.ndarray] = ys[:0], xs[:0]
    for _ in range(TRIES if ys.size else 0):
        i = rng.integers(ys.size)
        angle = rng.uniform(0, np.pi)
        dy, dx = round(length / 2 * np.sin(angle)), round(length / 2 * np.cos(angle))
        rows, columns = line(ys[i] - dy, xs[i] - dx, ys[i] + dy, xs[i] + dx)
        inside = (rows >= 0) & (rows < region.shape[0]) & (columns >= 0) & (columns < region.shape[1])
        inside[inside] = region[rows[inside], columns[inside]]
        runs, _ = ndimage.label(inside)
        run = runs == runs[len(rows) // 2]  # the run through the chosen pixel, the middle of the line
        run &= inside
        if run.sum() > best[0].size:
            best = rows[run], columns[run]
        if best[0].size >= 0.9 * length:
            break
    painted[best] = value
