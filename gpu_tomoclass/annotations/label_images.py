"""Label images as strokes: where their planes lie in the volume, and which voxels are labelled.

A label image has the shape of the volume, or that of a sub-stack of it. Planes are read one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_tomoclass.annotations.substack import SubStack
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volumes import Volume

Shape = tuple[int, int, int]
GREY_VALUES = 64  # and more, on most voxels: no person marks so many classes


@dataclass(frozen=True)
class LabelVoxels:
    """Labelled voxels in raster order of the file: ``z, y, x`` (n,) int64, ``label`` (n,) uint8."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    label: np.ndarray


def read_label_image(labels: Volume, *, volume_shape: Shape, substack: SubStack | None = None) -> LabelVoxels:
    """The labelled voxels of an open label image, in coordinates of the volume.

    Where no sub-stack is given, the file's own (``metadata["substack"]``: every, start, nz) counts. A file with as many
    planes as the volume is taken plane by plane in any case.

    Raises
    ------
    DataError
        If a value is not a whole number from 0 to 255, or a plane cannot be read.
    ModelError
        If the shape fits neither the volume nor the sub-stack.
    """
    planes = _planes(labels, volume_shape, substack)
    parts = []
    for i, plane in labels.planes():
        values = _whole_labels(plane, number=i, where=labels.path)
        y, x = np.nonzero(values)
        parts.append((np.full(y.size, planes[i]), y, x, values[y, x]))
    voxels = LabelVoxels(*(np.concatenate(v) for v in zip(*parts, strict=True)))
    _refuse_grey(labels, voxels)
    return voxels


def _refuse_grey(labels: Volume, voxels: LabelVoxels) -> None:
    """A grey image of 8 bits holds valid labels: nearly all values, nearly everywhere."""
    n_voxels, n_values = int(np.prod(labels.shape)), np.unique(voxels.label).size
    if n_values < GREY_VALUES or 2 * voxels.label.size < n_voxels or any(c.name for c in labels.classes):
        return
    share = 100 * voxels.label.size / n_voxels
    raise DataError(
        f"holds {n_values} values, and {share:.0f} % of its voxels are not 0: this is a grey image, not labels",
        where=labels.path,
        do="give the image that was painted: 0 where nothing is marked, 1, 2, .. the classes",
    )


def _whole_labels(plane: np.ndarray, *, number: int, where: str) -> np.ndarray:
    """The plane as uint8, (ny, nx); DataError naming the first voxel that is no label."""
    if plane.dtype.kind not in "buif":
        raise DataError(f"holds values of type {plane.dtype.name}, not labels", where=where)
    wrong = (plane < 0) | (plane > 255)
    if plane.dtype.kind == "f":
        wrong |= plane != np.rint(plane)  # true for NaN
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise DataError(
            f"plane {number} holds {plane[y, x]} at (y, x) = ({y}, {x}); labels are whole numbers, "
            "0 for unlabelled and 1 to 255 for classes",
            where=where,
            do="is this the label image?",
        )
    return plane.astype(np.uint8)


def _planes(labels: Volume, volume_shape: Shape, substack: SubStack | None) -> np.ndarray:
    """(n,) plane of the volume of each plane of the label image."""
    n, nz = labels.shape[0], volume_shape[0]
    if n == nz and (substack is None or len(substack.planes) != n):
        expected, planes = volume_shape, np.arange(nz)
    else:
        if n != nz and (own := labels.metadata.get("substack")) is not None:
            substack = _with_own(substack, own, nz=nz, where=labels.path)
        if substack is None:
            raise ModelError(_misfit(labels.shape, volume_shape), where=labels.path)
        count = min(n, len(substack.planes)) if substack.open_end else len(substack.planes)
        expected, planes = (count, *volume_shape[1:]), substack.planes
    if labels.shape != expected:
        raise ModelError(_misfit(labels.shape, volume_shape, expected), where=labels.path)
    return planes


def _with_own(substack: SubStack | None, own: Mapping[str, Any], *, nz: int, where: str) -> SubStack:
    """Sub-stack that the file states, unless the user says the opposite."""
    every, start, depth = (int(own[key]) for key in ("every", "start", "nz"))
    if depth != nz:
        raise ModelError(f"was cut from a volume of {depth} planes, and this one has {nz}", where=where)
    if substack is not None:
        asked = {"every": substack.every, "start": substack.start}
        wrong = {k: v for k, v in asked.items() if v is not None and v != {"every": every, "start": start}[k]}
        if wrong:
            said = ", ".join(f"{k} {v}" for k, v in wrong.items())
            raise UsageError(
                f"holds every {every}th plane from plane {start} on, and {said} was asked for", where=where
            )
        if substack.every is None and substack.start is None:  # planes were given one by one
            return substack
    return SubStack(np.arange(start, nz, every), every=every, start=start)


def _misfit(shape: Shape, volume_shape: Shape, expected: Shape | None = None) -> str:
    """Both shapes, and what would make them fit."""
    target = expected or volume_shape
    text = f"the labels have shape {shape}, the volume {volume_shape}"
    if expected is not None and expected != volume_shape:
        text += f", so its sub-stack {expected}"
    orders = [order for order in itertools.permutations(range(3)) if tuple(shape[i] for i in order) == target]
    if orders and shape != target:
        # order[k] is the stored axis that is axis k of the volume; --label-axes names the stored axes in turn.
        axes = sorted("".join("zyx"[order.index(i)] for i in range(3)) for order in orders)
        return f"{text}; did you mean --label-axes {' or --label-axes '.join(axes)}?"
    if expected is None and shape[1:] == volume_shape[1:] and shape[0] < volume_shape[0]:
        if shape[0] == 1:
            return f"{text}; which plane is it? Give --start"
        steps = [e for e in range(2, volume_shape[0]) if _count_range(volume_shape[0], e, shape[0])]
        if steps:
            shown = ", ".join(map(str, steps[:3])) + (", .." if len(steps) > 3 else "")
            return f"{text}; is it a sub-stack? Every {shown} would give {shape[0]} planes: give --every and --start"
        return f"{text}; is it a part of it? Give --start, the plane it begins with"
    return text


def _count_range(nz: int, every: int, n: int) -> bool:
    """Tell whether every ``every``-th of nz planes can be n planes, for some first plane below ``every``."""
    return nz // every <= n <= -(-nz // every)
