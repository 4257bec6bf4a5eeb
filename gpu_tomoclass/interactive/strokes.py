"""Strokes that are being painted: labels per plane, which stroke a pixel belongs to, and the way back.

Every change is an edit: pixels of some planes with what they held before. Undo and redo exchange the two, so that a
stroke, an erasure and a deleted stroke are taken back alike.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError

Shape = tuple[int, int, int]
MOST_EDITS = 500  # that can be undone; the oldest are forgotten
MOST_CLASSES = 255


@dataclass(frozen=True)
class Stroke:
    """Visible part of a stroke on one plane.

    Attributes
    ----------
    number : int
        Tells it from all others of the session.
    z : int
        Plane.
    value : int
        Its class.
    pixels : int
    y, x : int
        One of its pixels, about in the middle.
    """

    number: int
    z: int
    value: int
    pixels: int
    y: int
    x: int


@dataclass(frozen=True)
class _Change:
    """Pixels of a plane before and after an edit; all (n,)."""

    z: int
    pixels: npt.NDArray[np.int64]  # flat
    labels: npt.NDArray[np.uint8]  # to be put there
    owners: npt.NDArray[np.int32]


class _Plane:
    def __init__(self, shape: tuple[int, int]) -> None:
        self.labels = np.zeros(shape, np.uint8)
        self.owners = np.zeros(shape, np.int32)  # number of the stroke; 0 for none
        self.counts = np.zeros(256, np.int64)  # pixels by label
        self.version = 0
        self.listed: list[Stroke] = []
        self.listed_version = -1


class Strokes:
    """Labels painted on planes of a volume; 0 is unlabelled. Safe to use from several threads.

    Parameters
    ----------
    shape : tuple of int
        (nz, ny, nx) of the volume.
    classes : sequence of LabelClass
        Those that can be painted; at least one.

    Attributes
    ----------
    classes : tuple of LabelClass
    version : int
        Counts the changes.
    """

    def __init__(self, shape: Shape, classes: Sequence[LabelClass]) -> None:
        self.shape, self.version = shape, 0
        self.classes = checked_classes(classes)
        self._planes: dict[int, _Plane] = {}
        self._undo: list[list[_Change]] = []
        self._redo: list[list[_Change]] = []
        self._removed: dict[int, LabelClass] = {}  # classes, which come back with their strokes
        self._last = 0  # number of a stroke
        self._lock = threading.RLock()

    def planes(self) -> list[int]:
        """Planes with labels, in order."""
        with self._lock:
            return sorted(z for z, plane in self._planes.items() if plane.counts[1:].any())

    def labels(self, z: int) -> npt.NDArray[np.uint8]:
        """A copy of the labels of plane ``z``: (ny, nx)."""
        with self._lock:
            plane = self._planes.get(z)
            return np.zeros(self.shape[1:], np.uint8) if plane is None else plane.labels.copy()

    def plane_version(self, z: int) -> int:
        """Counts the changes of plane ``z``."""
        with self._lock:
            return self._planes[z].version if z in self._planes else 0

    def marked(self, z: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Flat positions and labels of the marked pixels of plane ``z``, in raster order: (n,) each."""
        with self._lock:
            if z not in self._planes:
                return np.empty(0, np.int64), np.empty(0, np.uint8)
            labels = self._planes[z].labels.ravel()
            pixels = np.flatnonzero(labels)
            return pixels, labels[pixels]

    def counts(self) -> dict[int, dict[int, int]]:
        """Pixels by plane and class value."""
        with self._lock:
            return {z: self._counts(self._planes[z]) for z in self.planes()}

    def class_counts(self) -> dict[int, int]:
        """Pixels by class value, on all planes."""
        total: dict[int, int] = {}
        for of_plane in self.counts().values():
            for value, n in of_plane.items():
                total[value] = total.get(value, 0) + n
        return total

    def listed(self) -> list[Stroke]:
        """The strokes of which pixels are left, by plane and number."""
        with self._lock:
            found = []
            for z in self.planes():
                plane = self._planes[z]
                if plane.listed_version == plane.version:
                    found += plane.listed
                    continue
                of_plane = []
                pixels = np.flatnonzero(plane.labels)
                owners = plane.owners.ravel()[pixels]
                order = np.argsort(owners, kind="stable")
                numbers, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
                for number, start, count in zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True):
                    middle = int(pixels[order[start + count // 2]])
                    y, x = divmod(middle, self.shape[2])
                    of_plane.append(Stroke(number, z, int(plane.labels[y, x]), count, y, x))
                plane.listed, plane.listed_version = of_plane, plane.version
                found += of_plane
            return found

    def paint(self, z: int, pixels: npt.NDArray[np.int64], value: int, *, planes: Iterable[int] = ()) -> list[int]:
        """Give pixels a class, or 0 to erase; the planes that changed.

        Parameters
        ----------
        z : int
            Plane.
        pixels : numpy.ndarray
            (n,) flat positions in a plane.
        value : int
            Of a class, or 0.
        planes : iterable of int
            More planes that get the same; none by default, as a brush has no depth.

        Raises
        ------
        UsageError
            If there is no such class, plane or pixel.
        """
        if value and value not in {c.value for c in self.classes}:
            raise UsageError(f"there is no class {value}", do="add it first")
        pixels = np.unique(np.asarray(pixels, dtype=np.int64))
        if pixels.size and not 0 <= pixels[0] <= pixels[-1] < self.shape[1] * self.shape[2]:
            raise UsageError(f"pixels {pixels[0]} to {pixels[-1]} are not all in a plane of {self.shape[1:]}")
        chosen = sorted({z, *planes})
        if not 0 <= chosen[0] <= chosen[-1] < self.shape[0]:
            raise UsageError(f"there is no plane {chosen[0] if chosen[0] < 0 else chosen[-1]} in {self.shape[0]}")
        with self._lock:
            self._last += 1
            owner = self._last if value else 0
            edit = []
            for at in chosen:
                held = self._planes.get(at)
                before = np.zeros(pixels.size, np.uint8) if held is None else held.labels.ravel()[pixels]
                changed = pixels[(before != value) | (value != 0)]
                n = changed.size
                edit.append(_Change(at, changed, np.full(n, value, np.uint8), np.full(n, owner, np.int32)))
            return self._do(edit)

    def delete(self, number: int) -> list[int]:
        """Erase what is left of a stroke; the planes that changed."""
        with self._lock:
            edit = []
            for z, plane in self._planes.items():
                pixels = np.flatnonzero((plane.owners == number) & (plane.labels > 0))
                edit.append(_Change(z, pixels, np.zeros(pixels.size, np.uint8), np.zeros(pixels.size, np.int32)))
            return self._do(edit)

    def put(self, annotation: Annotation) -> list[int]:
        """Add the strokes of an annotation, of which each connected patch of a class becomes a stroke.

        Raises
        ------
        UsageError
            If it belongs to another shape.
        """
        from scipy import ndimage

        if annotation.shape != self.shape:
            raise UsageError(f"the strokes belong to a volume of {annotation.shape}, and this one is {self.shape}")
        with self._lock:
            self._name(annotation.classes)
            edit = []
            for z in annotation.planes().tolist():
                labels = annotation.plane_labels(z)
                owners = np.zeros(labels.shape, np.int32)
                for value in np.unique(labels[labels > 0]):
                    patches, n = ndimage.label(labels == value, structure=np.ones((3, 3)))
                    owners[patches > 0] = patches[patches > 0] + self._last
                    self._last += n
                pixels = np.flatnonzero(labels)
                edit.append(_Change(z, pixels, labels.ravel()[pixels], owners.ravel()[pixels]))
            return self._do(edit)

    def undo(self) -> list[int]:
        """Take back the last edit; the planes that changed, none if there is no edit."""
        return self._exchange(self._undo, self._redo)

    def redo(self) -> list[int]:
        """Do again what was taken back last."""
        return self._exchange(self._redo, self._undo)

    @property
    def can_undo(self) -> bool:
        """Tell whether there is an edit to take back."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Tell whether there is an edit to do again."""
        return bool(self._redo)

    def forget_edits(self) -> None:
        """Forget edits: there is nothing to undo."""
        with self._lock:
            self._undo.clear()
            self._redo.clear()

    def set_classes(self, classes: Sequence[LabelClass]) -> None:
        """Other names and colours, or more classes.

        Raises
        ------
        UsageError
            If a class that has pixels is left out, or values or names are not different.
        """
        checked = checked_classes(classes)
        with self._lock:
            gone = self.values() - {c.value for c in checked}
            if gone:
                names = ", ".join(c.name for c in self.classes if c.value in gone)
                raise UsageError(f"{names} has strokes", do="erase them before the class is removed")
            self._removed.update({c.value: c for c in self.classes})
            self.classes = checked
            self.version += 1

    def annotation(self, *, path: str = "strokes") -> Annotation:
        """The marked pixels of all planes, in raster order, as training takes them."""
        with self._lock:
            parts = [(z, *self.marked(z)) for z in self.planes()]
            classes = self.classes
        pixels = np.concatenate([np.empty(0, np.int64), *(pixels for _, pixels, _ in parts)])
        y, x = np.divmod(pixels, self.shape[2])
        return Annotation.from_voxels(
            np.concatenate([np.empty(0, np.int64), *(np.full(pixels.size, z) for z, pixels, _ in parts)]),
            y,
            x,
            np.concatenate([np.empty(0, np.uint8), *(labels for _, _, labels in parts)]),
            shape=self.shape,
            classes=classes,
            path=path,
        )

    @staticmethod
    def _counts(plane: _Plane) -> dict[int, int]:
        return {int(value): int(plane.counts[value]) for value in np.flatnonzero(plane.counts) if value}

    def values(self) -> set[int]:
        """The classes that have pixels."""
        with self._lock:
            used = np.array([plane.counts for plane in self._planes.values()]).reshape(-1, 256).any(axis=0)
            return set(np.flatnonzero(used).tolist()) - {0}

    def _name(self, classes: Sequence[LabelClass]) -> None:
        """Classes that are new; names of a file count where ours are those that nobody chose."""
        mine = {c.value: c for c in self.classes}
        for c in classes:
            if c.value not in mine or mine[c.value].name == f"class {c.value}":
                mine[c.value] = c
        self.classes = checked_classes([mine[value] for value in sorted(mine)])

    def _do(self, edit: list[_Change]) -> list[int]:
        edit = [change for change in edit if change.pixels.size]
        if edit:
            self._undo.append(self._put(edit))
            del self._undo[:-MOST_EDITS]
            self._redo.clear()
        return [change.z for change in edit]

    def _exchange(self, source: list[list[_Change]], target: list[list[_Change]]) -> list[int]:
        with self._lock:
            if not source:
                return []
            edit = source.pop()
            target.append(self._put(edit))
            names = {c.name.strip().casefold() for c in self.classes}
            for value in self.values() - {c.value for c in self.classes}:
                back = self._removed[value]
                if back.name.strip().casefold() in names:
                    back = dataclasses.replace(back, name=f"{back.name} {value}")
                self.classes = checked_classes([*self.classes, back])
            return [change.z for change in edit]

    def _put(self, edit: list[_Change]) -> list[_Change]:
        """Make the changes; those that take them back."""
        back = []
        for change in edit:
            plane = self._planes.setdefault(change.z, _Plane(self.shape[1:]))
            labels, owners = plane.labels.reshape(-1), plane.owners.reshape(-1)
            back.append(_Change(change.z, change.pixels, labels[change.pixels], owners[change.pixels]))
            plane.counts -= np.bincount(labels[change.pixels], minlength=256)
            plane.counts += np.bincount(change.labels, minlength=256)
            labels[change.pixels], owners[change.pixels] = change.labels, change.owners
            plane.version += 1
        self.version += 1
        return back


def checked_classes(classes: Sequence[LabelClass]) -> tuple[LabelClass, ...]:
    """The classes by value, with different values and names; UsageError if they are not."""
    ordered = sorted(classes, key=lambda c: c.value)
    names = [c.name.strip().casefold() for c in ordered]
    if not ordered or len({c.value for c in ordered}) != len(ordered) or len(set(names)) != len(names):
        raise UsageError("classes need different values and names")
    if not all(names) or not 1 <= ordered[0].value <= ordered[-1].value <= MOST_CLASSES:
        raise UsageError(f"classes need a name and a value from 1 to {MOST_CLASSES}")
    return tuple(ordered)


def brush_pixels(points: Sequence[Sequence[float]], *, width: float, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Flat positions of the pixels that a round brush touches on its way.

    Parameters
    ----------
    points : sequence of (y, x)
        The way, in pixels from the corner of the plane: the centre of the first pixel is (0.5, 0.5).
    width : float
        Diameter in pixels. A pixel belongs to the stroke if its centre is no further from the way than half of it; the
        pixels in which the points lie always do.
    shape : (ny, nx)

    Raises
    ------
    UsageError
        If there is no point, or a number is not finite or not positive.
    """
    way = np.asarray(points, dtype=np.float64)
    if way.ndim != 2 or way.shape[1] != 2 or not len(way) or not np.isfinite(way).all():
        raise UsageError("a stroke needs points (y, x)")
    if not 0 < width <= 4 * max(shape):
        raise UsageError(f"a brush of {width} pixels cannot paint", do="give a width above 0")
    touched = np.zeros(shape, np.bool_)
    inside = np.floor(way).astype(np.int64)
    inside = inside[((inside >= 0) & (inside < shape)).all(axis=1)]
    touched[inside[:, 0], inside[:, 1]] = True
    radius = width / 2
    for a, b in zip(way, way[1:] if len(way) > 1 else way, strict=False):
        low = np.clip(np.floor(np.minimum(a, b) - radius).astype(int), 0, shape)
        high = np.clip(np.ceil(np.maximum(a, b) + radius).astype(int) + 1, 0, shape)
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]] + 0.5
        along = b - a
        length = float(along @ along)
        t = 0.0 if length == 0 else np.clip(((y - a[0]) * along[0] + (x - a[1]) * along[1]) / length, 0, 1)
        near = (y - a[0] - t * along[0]) ** 2 + (x - a[1] - t * along[1]) ** 2 <= radius**2
        touched[low[0] : high[0], low[1] : high[1]] |= near
    return np.flatnonzero(touched)
