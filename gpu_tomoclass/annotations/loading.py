"""Reading of strokes from files and arrays.

Label images (anything :func:`gpu_tomoclass.volumes.opening.open_volume` reads; 0 = unlabelled) and ImageJ ROIs
(:mod:`gpu_tomoclass.annotations.rois`) become the same thing, an :class:`Annotation`. TWS training rows (ARFF) are
ready features: :mod:`gpu_tomoclass.annotations.arff` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.annotations.annotation import Annotation, checked, merge_annotations
from gpu_tomoclass.annotations.class_names import ClassNames, colour_of, given_names, named_classes
from gpu_tomoclass.annotations.label_images import Shape, read_label_image
from gpu_tomoclass.annotations.rois import read_roi_strokes
from gpu_tomoclass.annotations.substack import SubStack
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes import NO_BIN, Bin, Planes, Volume, binned_shape, open_volume

StrPath = str | PathLike[str]


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
    names = given_names(class_names)
    substack = SubStack.of(volume_shape[0], every=every, start=start, planes=planes)

    def labelled(labels: Volume) -> Annotation:
        coarse = binned_shape(volume_shape, bin)
        if labels.shape == coarse:
            return _from_labels(labels, coarse, None, names=names)
        return binned(_from_labels(labels, volume_shape, substack, names=names), bin)

    if not isinstance(path, (str, PathLike)):
        annotation = labelled(open_volume(path, axes=axes))
        return annotation if partial else checked(annotation)
    where = fspath(path)
    if where.lower().endswith(".arff"):
        what = "is an ARFF file: training rows without positions, not strokes on a volume"
        raise UsageError(what, where=where, do="train takes it beside strokes with --from")
    if where.lower().endswith((".roi", ".zip")):
        annotation = binned(_from_rois(where, volume_shape, substack, names=names, skip_bad_rois=skip_bad_rois), bin)
    else:
        with open_volume(path, axes=axes, sparse=True) as labels:
            annotation = labelled(labels)
    return annotation if partial else checked(annotation)


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
        classes=named_classes(values, names, own, where=labels.path),
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
    own = {value: LabelClass(value, name, colour_of(value)) for value, name in strokes.class_names.items()}
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
        classes=named_classes(np.unique(strokes.label).tolist(), names, own, where=path),
        notes=notes,
        path=path,
        origin=strokes.roi,
        origins=[f"ROI {title}" for title in strokes.titles],
        order=np.arange(strokes.z.size),
        traced=True,
    )


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
