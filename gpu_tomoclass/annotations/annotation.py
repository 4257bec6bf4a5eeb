"""Strokes of a person: which voxels of a volume belong to which class.

Label images (anything :func:`gpu_tomoclass.volumes.opening.open_volume` reads; 0 = unlabelled) and ImageJ ROIs
(:mod:`gpu_tomoclass.annotations.rois`) become the same thing, an :class:`Annotation`. TWS training rows (ARFF) are
ready features and have a room of their own, :mod:`gpu_tomoclass.annotations.arff`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.annotations.label_images import Shape, read_label_image
from gpu_tomoclass.annotations.rois import read_roi_strokes
from gpu_tomoclass.annotations.substack import SubStack
from gpu_tomoclass.classes import PALETTE, LabelClass
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volumes import NO_BIN, Bin, Planes, Volume, binned_shape, open_volume

StrPath = str | PathLike[str]
ClassNames = Sequence[str] | Mapping[int, str]

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
            classes=_complete(classes, label),
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


def load_annotations(
    paths: Sequence[StrPath | Planes | Volume],
    *,
    volume_shape: Shape,
    bin: Bin = NO_BIN,
    partial: bool = False,
    **options: Any,
) -> Annotation:
    """Read several files as one annotation.

    Parameters
    ----------
    paths : sequence of path, array or Volume
    volume_shape, bin
        See :func:`load_annotation`.
    partial : bool
        Whether all together may hold a single class; each file may.
    **options
        Of :func:`load_annotation`.

    Raises
    ------
    UsageError, DataError, ModelError
        See :func:`load_annotation`; also if two files give one voxel different classes.
    """
    return merge_annotations(
        [load_annotation(path, volume_shape=volume_shape, bin=bin, partial=True, **options) for path in paths],
        partial=partial,
    )


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
    return merged if partial else _checked(merged)


def load_annotation(
    path: StrPath | Planes | Volume,
    *,
    volume_shape: Shape,
    bin: Bin = NO_BIN,
    every: int | None = None,
    start: int | None = None,
    class_names: ClassNames | None = None,
    axes: str | None = None,
    skip_bad_rois: bool = False,
    planes: Sequence[int] | None = None,
    partial: bool = False,
) -> Annotation:
    """Read the strokes of one file: a label image or ImageJ ROIs (``.roi``, ``.zip``); or take them from an array.

    Parameters
    ----------
    path : str, path, array or Volume
        An array (nz, ny, nx) is a label image.
    volume_shape : tuple of int
        (nz, ny, nx) of the volume that the strokes are for, as stored.
    bin : (int, int, int)
        The annotation is for the volume with so many voxels as one (``volume.bin``): a box has the class that most of
        its marked voxels have, and none where two have as many. A label image may have the binned shape itself.
    every, start : int, optional
        The file belongs to a sub-stack: its plane i is plane ``start + i * every`` of the volume; ``start`` alone means
        every plane from there on, ``every`` alone starts at ``every // 2``, as ``substack`` does. A label image with as
        many planes as the volume is taken plane by plane all the same.
    class_names : sequence of str or mapping, optional
        Names of the classes 1, 2, .. or value -> name. Default: what the file says, else "class 1", ..
    axes : str, optional
        Axes of a label image, if its file is wrong: ``"xyz"``.
    skip_bad_rois : bool
        Leave out ROIs that cannot be used, with a note, instead of refusing the file.
    planes : sequence of int, optional
        Instead of ``every`` and ``start``: plane i of the file is plane ``planes[i]`` of the volume.
    partial : bool
        The file is one of several that are merged later: it may be empty or hold a single class.

    Raises
    ------
    UsageError
        If there is no such file or the options contradict each other.
    DataError
        If the file is damaged, holds no labels or only one class, labels that are not whole numbers from 0 to 255, or
        ROIs that cannot be used.
    ModelError
        If the label image does not fit the volume.
    """
    names = _given_names(class_names)
    substack = SubStack.of(volume_shape[0], every=every, start=start, planes=planes)

    def labelled(labels: Volume) -> Annotation:
        coarse = binned_shape(volume_shape, bin)
        if labels.shape == coarse:
            return _from_labels(labels, coarse, None, names=names)
        return binned(_from_labels(labels, volume_shape, substack, names=names), bin)

    if not isinstance(path, (str, PathLike)):
        annotation = labelled(open_volume(path, axes=axes))
        return annotation if partial else _checked(annotation)
    where = fspath(path)
    if where.lower().endswith(".arff"):
        what = "is an ARFF file: training rows without positions, not strokes on a volume"
        raise UsageError(what, where=where, do="train takes it beside strokes with --from")
    if where.lower().endswith((".roi", ".zip")):
        annotation = binned(_from_rois(where, volume_shape, substack, names=names, skip_bad_rois=skip_bad_rois), bin)
    else:
        with open_volume(path, axes=axes, sparse=True) as labels:
            annotation = labelled(labels)
    return annotation if partial else _checked(annotation)


def binned(annotation: Annotation, bin: Bin) -> Annotation:
    """The annotation for a volume with ``bin`` voxels (z, y, x) as one; see :func:`load_annotation`."""
    if bin == NO_BIN:
        return annotation
    shape = binned_shape(annotation.shape, bin)
    z, y, x = (v.astype(np.int64) // n for v, n in zip((annotation.z, annotation.y, annotation.x), bin, strict=True))
    key = (z * shape[1] + y) * shape[2] + x
    votes, first, count = np.unique(key * 256 + annotation.label, return_index=True, return_counts=True)
    box = votes // 256
    best = np.zeros(len(box), count.dtype)
    starts = np.flatnonzero(np.append(True, box[1:] != box[:-1])[: len(box)])
    if len(box):
        best = np.repeat(np.maximum.reduceat(count, starts), np.diff(np.append(starts, len(box))))
    most = count == best
    alone = np.add.reduceat(most, starts, dtype=np.int64) == 1 if len(box) else np.zeros(0, bool)
    kept = first[most & np.repeat(alone, np.diff(np.append(starts, len(box))))]
    lost = len(starts) - len(kept)
    notes = list(annotation.notes)
    if lost:
        notes.append(
            f"{annotation.path}: {lost} of {len(starts)} binned voxels have two classes in equal parts: left out"
        )
    return Annotation.from_voxels(
        z[kept], y[kept], x[kept], annotation.label[kept], shape=shape, classes=annotation.classes, notes=notes,
        path=annotation.path, order=annotation.order[kept], traced=annotation.traced[kept],
    )  # fmt: skip


def _from_labels(
    labels: Volume, shape: Shape, substack: SubStack | None, *, names: Mapping[int, str] | None
) -> Annotation:
    voxels = read_label_image(labels, volume_shape=shape, substack=substack)
    notes = [f"{labels.path}: {note}" for note in labels.notes]
    if labels.dtype.kind == "f" and voxels.label.size:
        notes.append(f"{labels.path}: labels are stored as {labels.dtype.name}; all of them are whole numbers")
    values = np.unique(voxels.label).tolist()
    if values and values != list(range(1, len(values) + 1)):
        kept = ", ".join(map(str, values))
        notes.append(f"{labels.path}: the label values are {kept}; they are kept as they are")
    own = {c.value: c for c in labels.classes}
    return Annotation.from_voxels(
        voxels.z,
        voxels.y,
        voxels.x,
        voxels.label,
        shape=shape,
        classes=_named(values, names, own, where=labels.path),
        notes=notes,
        path=labels.path,
    )


def _from_rois(
    path: str,
    shape: Shape,
    substack: SubStack | None,
    *,
    names: Mapping[int, str] | None,
    skip_bad_rois: bool,
) -> Annotation:
    strokes = read_roi_strokes(
        path,
        volume_shape=shape,
        substack=None if substack is None else substack.planes,
        # Only the first plane is known: then ROIs without a position were drawn on that plane alone.
        first_plane=substack.start if substack is not None and substack.open_end else None,
        class_names=names,
        skip_bad_rois=skip_bad_rois,
    )
    own = {value: LabelClass(value, name, _colour(value)) for value, name in strokes.class_names.items()}
    notes = [f"{path}: {note}" for note in strokes.notes]
    if substack is None and strokes.z.size and 0 < (last := int(strokes.z.max())) < shape[0] // 4:
        notes.append(
            f"{path}: all ROIs lie on planes 0 to {last} of {shape[0]}; if they were drawn on a sub-stack, give the"
            " --every it was made with, or train on the sub-stack itself"
        )
    return Annotation.from_voxels(
        strokes.z,
        strokes.y,
        strokes.x,
        strokes.label,
        shape=shape,
        classes=_named(np.unique(strokes.label).tolist(), names, own, where=path),
        notes=notes,
        path=path,
        origin=strokes.roi,
        origins=[f"ROI {title}" for title in strokes.titles],
        order=np.arange(strokes.z.size),
        traced=True,
    )


def _after_each_other(orders: Sequence[np.ndarray]) -> np.ndarray:
    """Orders of several files as one, in which each file follows the one before."""
    starts = np.cumsum([0, *(1 + order.max(initial=-1) for order in orders[:-1])])
    return np.concatenate([order + start for order, start in zip(orders, starts, strict=True)])


def _checked(annotation: Annotation) -> Annotation:
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


# --- classes ----------------------------------------------------------------------------------------------------------


def _colour(value: int) -> tuple[int, int, int]:
    return PALETTE[(value - 1) % len(PALETTE)]


def _default(value: int) -> LabelClass:
    return LabelClass(value, f"class {value}", _colour(value))


def _given_names(names: ClassNames | None) -> dict[int, str] | None:
    """Value -> name of the names that the user gave, checked."""
    if names is None:
        return None
    if isinstance(names, str):
        raise UsageError(f"class names must be a list, not the text {names!r}")
    given = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
    clean = {int(value): str(name).strip() for value, name in given.items()}
    if not clean or not all(clean.values()) or len({name.casefold() for name in clean.values()}) != len(clean):
        raise UsageError(f"class names must be different and not empty, not {list(given.values())}")
    if not 1 <= min(clean) <= max(clean) <= 255:
        raise UsageError(f"class values go from 1 to 255, not {min(clean)} to {max(clean)}")
    return clean


def _named(
    values: Sequence[int], names: Mapping[int, str] | None, own: Mapping[int, LabelClass], *, where: str
) -> list[LabelClass]:
    """The class of every value: named by the user, else by the file, else by its number."""
    if names is not None and (nameless := [value for value in values if value not in names]):
        what = f"holds class {', '.join(map(str, nameless))}, and names are given for {', '.join(map(str, names))} only"
        raise DataError(what, where=where, do="name every class, or correct the labels")
    found = [own.get(value) or _default(value) for value in values]
    return found if names is None else [replace(c, name=names[c.value]) for c in found]


def _complete(classes: Sequence[LabelClass], label: np.ndarray) -> tuple[LabelClass, ...]:
    """The class of every label that occurs, by value."""
    known = {c.value: c for c in classes}
    return tuple(known.get(value) or _default(value) for value in np.unique(label).tolist())


def merge_classes(annotations: Sequence[Annotation], notes: list[str]) -> tuple[LabelClass, ...]:
    """The classes of annotations of several volumes, one per value; a class that only some name has that name in all.

    Raises
    ------
    DataError
        If a class has two names, or a name two classes.
    """
    marked = np.concatenate([annotation.label for annotation in annotations])
    return _complete(_merged_classes(annotations, notes), marked)


def _merged_classes(annotations: Sequence[Annotation], notes: list[str]) -> list[LabelClass]:
    """One class per value; "class k" gives way to a real name, with a note."""
    do = "name the classes with --class-names, in the order of their values"
    classes: dict[int, LabelClass] = {}
    source: dict[int, str] = {}
    for annotation in annotations:
        for new in (c for c in annotation.classes if c.name != _default(c.value).name):
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
        nameless = [c.value for c in annotation.classes if c.name == _default(c.value).name and c.value in classes]
        if nameless:
            taken = ", ".join(f"{value} as {classes[value].name}" for value in nameless)
            notes.append(f"{annotation.path} does not name its classes; {taken}, as in the other files")
    return list(classes.values())
