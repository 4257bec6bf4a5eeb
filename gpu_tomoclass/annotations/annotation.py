"""Strokes of a person: which voxels of a volume belong to which class; of several files as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gpu_tomoclass.annotations.class_names import complete_classes, default_class
from gpu_tomoclass.annotations.label_images import Shape
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, ModelError, UsageError

# Below this, a class can hardly be learnt; the user is told, not stopped.
_FEW_VOXELS = 5


@dataclass(frozen=True, eq=False)
class Annotation:
    """Labelled voxels of a volume, each once, in raster order (z, then y, then x).

    Attributes
    ----------
    z, y, x : numpy.ndarray
        (n,) int32, voxel coordinates in the full volume.
    label : numpy.ndarray
        (n,) uint8, class values 1..255.
    classes : tuple of LabelClass
        The classes that have voxels, sorted by value.
    shape : tuple of int
        (nz, ny, nx) of the volume.
    notes : list of str
        What the user should know: assumptions, things left out, classes with few voxels.
    path : str
        Where it came from; for messages.
    order : numpy.ndarray
        (n,) int64, rising in the order in which the file or files hold the voxels; default raster order.
    traced : numpy.ndarray
        (n,) bool: drawn as a ROI, not painted in a label image; default nowhere.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    label: np.ndarray
    classes: tuple[LabelClass, ...]
    shape: Shape
    notes: list[str] = field(default_factory=list)
    path: str = "annotation"
    order: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    traced: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))

    def __post_init__(self) -> None:
        if self.order.shape != self.z.shape:
            object.__setattr__(self, "order", np.arange(self.z.size))
        if self.traced.shape != self.z.shape:
            object.__setattr__(self, "traced", np.zeros(self.z.size, dtype=np.bool_))

    @classmethod
    def from_voxels(
        cls,
        z: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        label: np.ndarray,
        *,
        shape: Shape,
        classes: Sequence[LabelClass] = (),
        notes: Iterable[str] = (),
        path: str = "annotation",
        origin: np.ndarray | None = None,
        origins: Sequence[str] = (),
        order: np.ndarray | None = None,
        traced: np.ndarray | bool = False,
    ) -> Annotation:
        """Annotation of voxels in any order; a voxel may occur twice if it has the same class.

        Parameters
        ----------
        z, y, x, label : array_like
            (n,) integers; coordinates inside ``shape``, labels 1..255.
        shape : tuple of int
            (nz, ny, nx) of the volume.
        classes : sequence of LabelClass
            Names and colours; values without one get "class k" and a palette colour.
        notes : iterable of str
        path : str
            For messages.
        origin, origins : numpy.ndarray, sequence of str
            (n,) index into ``origins``: which stroke or file each voxel comes from; for messages.
        order, traced : numpy.ndarray
            See the class.

        Raises
        ------
        DataError
            If a voxel has two classes (the first is named), lies outside, or has a label that is none.
        """
        z, y, x = (np.asarray(v, dtype=np.int64) for v in (z, y, x))
        label = np.asarray(label)
        if not z.shape == y.shape == x.shape == label.shape or z.ndim != 1:
            raise UsageError(f"coordinates and labels differ in number: {[v.shape for v in (z, y, x, label)]}")
        for name, v, n in zip("zyx", (z, y, x), shape, strict=True):
            if v.size and not 0 <= v.min() <= v.max() < n:
                raise DataError(f"{name} spans {v.min()} to {v.max()}, outside the volume of {shape}", where=path)
        if label.size and not 1 <= label.min() <= label.max() <= 255:
            raise DataError(f"labels span {label.min()} to {label.max()}; classes go from 1 to 255", where=path)
        key = (z * shape[1] + y) * shape[2] + x
        given = key if order is None else np.asarray(order, dtype=np.int64)
        traced = np.broadcast_to(np.asarray(traced, dtype=np.bool_), key.shape)
        by_raster = np.lexsort((given, ~traced, key))
        key, label = key[by_raster], label[by_raster].astype(np.uint8)
        again = np.zeros(key.size, dtype=bool)
        again[1:] = key[1:] == key[:-1]
        clash = again.copy()
        clash[1:] &= label[1:] != label[:-1]
        if clash.any():
            second = int(np.flatnonzero(clash)[0])
            whose = [f"class {label[i]}" for i in (second - 1, second)]
            if origin is not None:
                whose = [
                    f"{w} in {origins[origin[by_raster[i]]]}" for w, i in zip(whose, (second - 1, second), strict=True)
                ]
            n, at = np.unique(key[clash]).size, tuple(int(v) for v in np.unravel_index(key[second], shape))
            voxels = "1 voxel has" if n == 1 else f"{n} voxels have"
            raise DataError(f"{voxels} two classes, first at (z, y, x) = {at}: {' and '.join(whose)}", where=path)
        z, rest = np.divmod(key[~again], shape[1] * shape[2])
        y, x = np.divmod(rest, shape[2])
        label = label[~again]
        return cls(
            z=z.astype(np.int32),
            y=y.astype(np.int32),
            x=x.astype(np.int32),
            label=label,
            classes=complete_classes(classes, label),
            shape=shape,
            notes=list(notes),
            path=path,
            order=given[by_raster][~again],
            traced=traced[by_raster][~again],
        )

    def planes(self) -> np.ndarray:
        """Planes with labels, sorted, (n,) int32."""
        return np.unique(self.z)

    def counts(self) -> dict[int, int]:
        """Voxels per class value."""
        values, counts = np.unique(self.label, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    def on_plane(self, z: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(y, x, label) of the labelled voxels of plane ``z``, in raster order."""
        first, last = np.searchsorted(self.z, [z, z + 1])
        return self.y[first:last], self.x[first:last], self.label[first:last]

    def row_order(self) -> np.ndarray:
        """The voxels in the order of TWS's training rows, on which the bootstrap of its trees depends: (n,) int64.

        ROIs first, class by class, inside a class plane by plane, on a plane ROI by ROI (``createTrainingInstances``);
        then label images, plane by plane in raster order (``addLabeledData``).
        """
        return np.lexsort(
            (self.order, np.where(self.traced, self.z, 0), np.where(self.traced, self.label, 0), ~self.traced)
        )

    def plane_labels(self, z: int) -> np.ndarray:
        """Plane ``z`` as a label image: (ny, nx) uint8, 0 = unlabelled."""
        image = np.zeros(self.shape[1:], dtype=np.uint8)
        y, x, label = self.on_plane(z)
        image[y, x] = label
        return image

    def merged(self, other: Annotation) -> Annotation:
        """This annotation and ``other`` together; see :func:`merge_annotations`."""
        return merge_annotations([self, other])


def merge_annotations(annotations: Sequence[Annotation], *, partial: bool = False) -> Annotation:
    """One annotation of the strokes of all; with ``partial`` it may hold a single class.

    Raises
    ------
    UsageError
        If there is none to merge.
    ModelError
        If they belong to volumes of different shapes.
    DataError
        If a voxel has two classes, a class two names or a name two classes, or only one class is left.
    """
    if not annotations:
        raise UsageError("there is no annotation")
    first, *others = annotations
    for other in others:
        if other.shape != first.shape:
            raise ModelError(
                f"belongs to a volume of {other.shape}, {first.path} to one of {first.shape}", where=other.path
            )
    notes = list(dict.fromkeys(note for a in annotations for note in a.notes))
    merged = Annotation.from_voxels(
        np.concatenate([a.z for a in annotations]),
        np.concatenate([a.y for a in annotations]),
        np.concatenate([a.x for a in annotations]),
        np.concatenate([a.label for a in annotations]),
        shape=first.shape,
        classes=_merged_classes(annotations, notes),
        notes=notes,
        path=", ".join(dict.fromkeys(a.path for a in annotations)),
        origin=np.repeat(np.arange(len(annotations)), [a.z.size for a in annotations]),
        origins=[a.path for a in annotations],
        order=_after_each_other([a.order for a in annotations]),
        traced=np.concatenate([a.traced for a in annotations]),
    )
    return merged if partial else checked(merged)


def _after_each_other(orders: Sequence[np.ndarray]) -> np.ndarray:
    """Orders of several files as one, in which each file follows the one before."""
    starts = np.cumsum([0, *(1 + order.max(initial=-1) for order in orders[:-1])])
    return np.concatenate([order + start for order, start in zip(orders, starts, strict=True)])


def checked(annotation: Annotation) -> Annotation:
    """Two classes are there; classes with few voxels are noted."""
    counts = annotation.counts()
    names = {c.value: c.name for c in annotation.classes}
    if not counts:
        what = "holds no labels: every voxel is 0 (unlabelled)"
        raise DataError(what, where=annotation.path, do="mark at least two classes")
    if len(counts) == 1:
        ((value, n),) = counts.items()
        what = f"holds one class only: {n} voxels of class {value} ({names[value]})"
        raise DataError(what, where=annotation.path, do="mark at least one more class")
    few = [f"{names[value]}: {n}" for value, n in counts.items() if n < _FEW_VOXELS]
    if not few:
        return annotation
    return replace(annotation, notes=[*annotation.notes, f"classes with very few labelled voxels: {', '.join(few)}"])


def merge_classes(annotations: Sequence[Annotation], notes: list[str]) -> tuple[LabelClass, ...]:
    """The classes of annotations of several volumes, one per value; a class that only some name has that name in all.

    Raises
    ------
    DataError
        If a class has two names, or a name two classes.
    """
    marked = np.concatenate([annotation.label for annotation in annotations])
    return complete_classes(_merged_classes(annotations, notes), marked)


def _merged_classes(annotations: Sequence[Annotation], notes: list[str]) -> list[LabelClass]:
    """One class per value; "class k" gives way to a real name, with a note."""
    do = "name the classes with --class-names, in the order of their values"
    classes: dict[int, LabelClass] = {}
    source: dict[int, str] = {}
    for annotation in annotations:
        for new in (c for c in annotation.classes if c.name != default_class(c.value).name):
            old = classes.setdefault(new.value, new)
            source.setdefault(new.value, annotation.path)
            if new.name != old.name:
                what = f"class {new.value} is '{old.name}' in {source[new.value]} and '{new.name}' in {annotation.path}"
                raise DataError(what, do=do)
    values: dict[str, int] = {}
    for value, c in classes.items():
        other = values.setdefault(c.name.casefold(), value)
        if other != value:
            what = f"class '{c.name}' is {other} in {source[other]} and {value} in {source[value]}"
            raise DataError(what, do=do)
    for annotation in annotations:
        nameless = [c.value for c in annotation.classes if c.name == default_class(c.value).name and c.value in classes]
        if nameless:
            taken = ", ".join(f"{value} as {classes[value].name}" for value in nameless)
            notes.append(f"{annotation.path} does not name its classes; {taken}, as in the other files")
    return list(classes.values())
