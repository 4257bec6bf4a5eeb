"""Pixels that an ImageJ ROI covers; reading the file and finding class and plane is in
:mod:`gpu_tomoclass.annotations.rois`.

ImageJ counts coordinates of areas from the upper left corner of pixel (0, 0) and those of lines and points from its
centre. An area covers the pixels whose centre lies inside, by the same rule as ImageJ's mask, ties included. A stroke
covers the pixels within half its width of the drawn path, with flat ends; a stroke of width 1 or less covers the pixels
under the path.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from skimage.draw import line as line_pixels

from gpu_tomoclass.errors import DataError

AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
STROKES = (ROI_TYPE.LINE, ROI_TYPE.FREELINE, ROI_TYPE.POLYLINE)

# What an outline that only Java's library draws covers, pixel by pixel, as straight edges.
AS_MASK = (
    "Edit > Selection > Create Mask, then Edit > Selection > Create Selection on the mask, gives the same pixels as"
    " straight edges; set group and slice again"
)
# Long segments are cut so that the window around a piece stays small.
_PIECE = 256.0
_LONGEST = 1e7
# ImageJ counts a pixel centre that lies exactly on the border in on one side only; this settles which.
_TIE = 1e-6


@dataclass(frozen=True)
class Pixels:
    """Pixels of one ROI inside the image, each once, in the order in which TWS meets them.

    That is along the path for a stroke of width 1 or less, else column by column, each from its top.

    Attributes
    ----------
    y, x : numpy.ndarray
        (n,) int64.
    clipped : bool
        Whether a part of the ROI lies outside the image.
    point : numpy.ndarray or None
        (n,) int64, for points: which point of the ROI each pixel is (points of one ROI can lie on different planes).
    """

    y: np.ndarray
    x: np.ndarray
    clipped: bool
    point: np.ndarray | None = None


def roi_pixels(roi: ImagejRoi, shape: tuple[int, int]) -> Pixels:
    """Pixels of an image of ``shape`` (ny, nx) that ``roi`` covers.

    Raises
    ------
    DataError
        If the ROI is of a type that is not used, lies outside the image or covers no pixel; ``what`` is the reason.
    """
    _refuse_unused(roi)
    if roi.composite:
        pixels = _area(_paths(roi.multi_coordinates), shape)
    elif roi.roitype in AREAS:
        xy = _coordinates(roi)
        if roi.subpixel_coordinates is not None:  # ImageJ keeps them as float32, counted from the outline's bounds
            corner = xy.min(axis=0)
            xy = corner + (xy - corner).astype(np.float32)
        pixels = _area([xy], shape)
    elif roi.roitype == ROI_TYPE.RECT:
        pixels = _rectangle(roi, shape)
    elif roi.roitype == ROI_TYPE.OVAL:
        pixels = _oval(roi, shape)
    elif roi.roitype in STROKES:
        pixels = _stroke(_coordinates(roi), stroke_width(roi), shape)
    else:
        pixels = _points(_coordinates(roi), shape)
    if pixels.y.size == 0:
        if pixels.clipped:
            raise DataError(f"lies outside the image of {shape[0]} rows and {shape[1]} columns ({_extent(roi)})")
        raise DataError("covers no pixel centre")
    if roi.roitype in STROKES and not roi.composite and stroke_width(roi) <= 1:
        return pixels
    by_column = np.lexsort((pixels.y, pixels.x))
    point = None if pixels.point is None else pixels.point[by_column]
    return Pixels(pixels.y[by_column], pixels.x[by_column], pixels.clipped, point)


def stroke_width(roi: ImagejRoi) -> float:
    """Width in pixels; 0 where the ROI has no stroke of its own."""
    width = float(roi.float_stroke_width if roi.float_stroke_width > 0 else roi.stroke_width)
    if not 0 <= width <= 1000:
        raise DataError(f"has a stroke width of {width:g} pixels")
    return width


def _refuse_unused(roi: ImagejRoi) -> None:
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.ARROW):
        instead = ": draw it with the straight line tool" if roi.subtype == ROI_SUBTYPE.ARROW else ""
        raise DataError(f"is an overlay ({roi.subtype.name.lower()}), not a selection{instead}")
    if roi.options & ROI_OPTIONS.SPLINE_FIT and roi.roitype in STROKES:
        raise DataError(
            "is spline-fitted, which is not used: Edit > Selection > Interpolate, interval 1, makes it a polygon"
        )
    if roi.options & ROI_OPTIONS.SPLINE_FIT:
        raise DataError(f"is spline-fitted, which is not used: {AS_MASK}")
    if roi.composite:
        if roi.roitype != ROI_TYPE.RECT:
            raise DataError("is damaged: a composite that is not stored as one")
    elif roi.roitype == ROI_TYPE.RECT and roi.rounded_rect_arc_size > 0:
        raise DataError(f"is a rounded rectangle, which is not used: {AS_MASK}")
    elif roi.roitype == ROI_TYPE.ANGLE:
        raise DataError("is an angle measurement, not a stroke")
    elif roi.roitype not in (*AREAS, *STROKES, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.POINT):
        raise DataError(f"is of unknown ROI type {int(roi.roitype.value)}")


def _coordinates(roi: ImagejRoi) -> np.ndarray:
    """(n, 2) float64, x and y in image coordinates."""
    xy = np.asarray(roi.coordinates(), dtype=np.float64)
    if xy.ndim != 2 or len(xy) == 0:
        raise DataError("has no coordinates")
    if not (np.isfinite(xy).all() and np.abs(xy).max() < 2**31):
        raise DataError("has coordinates that are not numbers or absurdly large")
    return xy


def _extent(roi: ImagejRoi) -> str:
    if roi.composite:
        xy = np.concatenate(_paths(roi.multi_coordinates))
    elif roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        left, top, width, height = _box(roi)
        xy = np.array([[left, top], [left + width, top + height]])
    else:
        xy = _coordinates(roi)
    (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
    return f"it spans x {left:g} to {right:g}, y {top:g} to {bottom:g}"


def _window(low: np.ndarray, high: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int, bool]:
    """y0, x0, y1, x1 of the pixels low..high (x, y; high included) inside the image; whether any are outside."""
    (x0, y0), (x1, y1) = (int(v) for v in low), (int(v) + 1 for v in high)
    clipped = x0 < 0 or y0 < 0 or x1 > shape[1] or y1 > shape[0]
    y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, shape[0]), min(x1, shape[1])
    return y0, x0, max(y0, y1), max(x0, x1), clipped


def _area(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> Pixels:
    """Pixels whose centre is inside the closed polygons (even-odd: a polygon inside another one is a hole)."""
    xy = np.concatenate(polygons)
    y0, x0, y1, x1, clipped = _window(np.floor(xy.min(axis=0)), np.ceil(xy.max(axis=0)) - 1, shape)
    borders = np.zeros((y1 - y0, x1 - x0 + 1), dtype=np.int32)
    starts = xy
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    for first in range(0, len(xy), 1024):
        _add_borders(borders, starts[first : first + 1024], ends[first : first + 1024], y0, x0)
    inside = np.cumsum(borders[:, :-1], axis=1) % 2 == 1
    y, x = np.nonzero(inside)
    return Pixels(y + y0, x + x0, clipped)


def _add_borders(borders: np.ndarray, starts: np.ndarray, ends: np.ndarray, y0: int, x0: int) -> None:
    """Count, per row, the column where each edge is crossed; a pixel is inside after an odd number of crossings."""
    swap = starts[:, 1] > ends[:, 1]
    upper, lower = np.where(swap[:, None], ends, starts), np.where(swap[:, None], starts, ends)
    first = np.clip(np.floor(upper[:, 1] + 0.5).astype(np.int64), y0, y0 + len(borders))
    last = np.clip(np.floor(lower[:, 1] + 0.5).astype(np.int64), y0, y0 + len(borders))
    n_rows = last - first
    edge = np.repeat(np.arange(len(starts)), n_rows)
    row = np.arange(n_rows.sum()) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[edge]
    (x_upper, y_upper), (x_lower, y_lower) = upper[edge].T, lower[edge].T
    crossing = x_upper + (row + 0.5 - y_upper) * (x_lower - x_upper) / (y_lower - y_upper)
    # 1e-8: as in ImageJ, so that a crossing exactly at a pixel centre falls on the same side.
    column = np.clip(np.floor(crossing + 1e-8 + 0.5) - x0, 0, borders.shape[1] - 1).astype(np.int64)
    np.add.at(borders, (row - y0, column), 1)


def _paths(path: np.ndarray | None) -> list[np.ndarray]:
    """Polygons of a composite ROI: a flat list of (0, x, y) move, (1, x, y) line, (4,) close."""
    values = np.asarray(path, dtype=np.float64).tolist()
    polygons: list[list[tuple[float, float]]] = []
    i = 0
    while i < len(values):
        step = values[i]
        if step in (2, 3):
            raise DataError(f"is a composite with curved edges, which is not used: {AS_MASK}")
        if step not in (0, 1, 4) or (step != 4 and i + 2 >= len(values)) or (step != 0 and not polygons):
            raise DataError("is damaged: its composite path cannot be followed")
        if step == 0:
            polygons.append([])
        if step != 4:
            polygons[-1].append((values[i + 1], values[i + 2]))
        i += 1 if step == 4 else 3
    if not polygons:
        raise DataError("is an empty composite")
    arrays = [np.array(polygon) for polygon in polygons]
    if not all(np.isfinite(a).all() and np.abs(a).max() < 2**31 for a in arrays):
        raise DataError("has coordinates that are not numbers or absurdly large")
    return arrays


def _box(roi: ImagejRoi) -> tuple[int, int, int, int]:
    """left, top, width, height in whole pixels, as ImageJ rounds boxes with subpixel coordinates."""
    if not roi.subpixelrect:
        return roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
    box = np.array([roi.xd, roi.yd, roi.widthd, roi.heightd], dtype=np.float64)
    if not (np.isfinite(box).all() and np.abs(box).max() < 2**31):
        raise DataError("has coordinates that are not numbers or absurdly large")
    return int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))


def _rectangle(roi: ImagejRoi, shape: tuple[int, int]) -> Pixels:
    left, top, width, height = _box(roi)
    y0, x0, y1, x1, clipped = _window(np.array([left, top]), np.array([left + width - 1, top + height - 1]), shape)
    y, x = np.mgrid[y0:y1, x0:x1]
    return Pixels(y.ravel(), x.ravel(), clipped)


def _oval(roi: ImagejRoi, shape: tuple[int, int]) -> Pixels:
    left, top, width, height = _box(roi)
    y0, x0, y1, x1, clipped = _window(np.array([left, top]), np.array([left + width - 1, top + height - 1]), shape)
    y, x = np.mgrid[y0:y1, x0:x1]
    a, b = width / 2, height / 2
    inside = (x - left - (a - 0.5)) ** 2 / a**2 + (y - top - (b - 0.5)) ** 2 / b**2 <= 1 if y.size else y > 0
    return Pixels(y[inside], x[inside], clipped)


def _points(xy: np.ndarray, shape: tuple[int, int]) -> Pixels:
    x, y = np.floor(xy + 0.5).astype(np.int64).T
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    return Pixels(y[inside], x[inside], not inside.all(), np.flatnonzero(inside))


def _stroke(path: np.ndarray, width: float, shape: tuple[int, int]) -> Pixels:
    nearest = np.floor(path + 0.5).astype(np.int64)
    clipped = bool((nearest < 0).any() or (nearest >= np.array(shape[::-1])).any())
    moved = np.append(True, (path[1:] != path[:-1]).any(axis=1))
    path, nearest = path[moved], nearest[moved]
    length = float(np.hypot(*np.diff(path, axis=0).T).sum())
    if length > _LONGEST:
        raise DataError(f"has a path of {length:.3g} pixels")
    if width > 1:
        covered, y0, x0 = _within(path + _TIE, width / 2, shape)
        y, x = np.nonzero(covered)
        return Pixels(y + y0, x + x0, clipped)
    steps = [line_pixels(a[1], a[0], b[1], b[0]) for a, b in itertools.pairwise(nearest)]
    pixels = np.concatenate([nearest[:1, ::-1].T, *(np.stack(step) for step in steps)], axis=1)
    inside = (pixels >= 0).all(axis=0) & (pixels < np.array(shape)[:, None]).all(axis=0)
    _, first = np.unique(pixels[:, inside], axis=1, return_index=True)
    y, x = pixels[:, inside][:, np.sort(first)]
    return Pixels(y, x, clipped)


def _within(path: np.ndarray, radius: float, shape: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Mask of the pixels within ``radius`` of the path but not beyond its ends, and the mask's first row and column.

    Round ends would mark up to half the width more than the screen shows; ImageJ draws and samples flat ends. A pixel
    belongs to the segment it is nearest to, so flat ends are decided by the first and the last segment alone.
    """
    y0, x0, y1, x1, _ = _window(np.floor(path.min(axis=0) - radius), np.ceil(path.max(axis=0) + radius), shape)
    distance = np.full((y1 - y0, x1 - x0), np.inf)
    beyond = np.zeros(distance.shape, dtype=bool)
    path = _cut(path)
    lengths = np.hypot(*np.diff(path, axis=0).T)
    # Neighbouring short segments share a window: a freehand line has hundreds of them.
    together = 16 if max(lengths.max(), radius) < 32 else 1
    for first in range(0, len(lengths), together):
        piece, length = path[first : first + together + 1], lengths[first : first + together, None, None]
        top, left, bottom, right, _ = _window(
            np.floor(piece.min(axis=0) - radius), np.ceil(piece.max(axis=0) + radius), shape
        )
        if top == bottom or left == right:
            continue
        dx = np.arange(left, right)[None, None, :] - piece[:-1, 0, None, None]
        dy = np.arange(top, bottom)[None, :, None] - piece[:-1, 1, None, None]
        ux, uy = np.diff(piece, axis=0).T[:, :, None, None] / np.where(length > 0, length, 1)
        along = dx * ux + dy * uy
        on_segment = np.clip(along, 0, length)
        here = np.hypot(dx - on_segment * ux, dy - on_segment * uy)
        nearest = here.argmin(axis=0)
        past_end = np.zeros(nearest.shape, dtype=bool)
        if first == 0:
            past_end |= (nearest == 0) & (along[0] < -0.5)
        if first + together >= len(lengths):
            past_end |= (nearest == len(along) - 1) & (along[-1] > length[-1] + 0.5)
        view = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
        closest = here.min(axis=0)
        closer = closest < distance[view]
        distance[view] = np.where(closer, closest, distance[view])
        beyond[view] = np.where(closer, past_end, beyond[view])
    return (distance <= radius) & ~beyond, y0, x0


def _cut(path: np.ndarray) -> np.ndarray:
    """The same path with points added so that no segment is longer than ``_PIECE``; a single point becomes two."""
    parts = [path[:1]]
    for a, b in itertools.pairwise(path):
        n = int(np.ceil(np.hypot(*(b - a)) / _PIECE))
        parts.append(a + (b - a) * (np.arange(1, n + 1) / n)[:, None])
    return np.concatenate(parts if len(path) > 1 else [path, path])
