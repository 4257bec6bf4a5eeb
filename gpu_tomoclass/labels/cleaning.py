"""Cleaning of labels: objects smaller than a certain size are removed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.labels.objects import ObjectFinder, ObjectSlab
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import VolumeLike, check_volume_target, create_volume, open_volume


@dataclass(frozen=True)
class Cleaned:
    """Report of a cleaning.

    Attributes
    ----------
    objects : dict of int to int
        Objects removed, by label value.
    kept : dict of int to int
        Objects kept, by label value.
    voxels : int
        Voxels that changed hands.
    """

    objects: dict[int, int]
    kept: dict[int, int]
    voxels: int


def clean(
    labels: VolumeLike,
    path: str | PathLike[str],
    *,
    min_size: int,
    fill: bool = False,
    classes: Collection[int] | None = None,
    overwrite: bool = False,
    slab_planes: int | None = None,
    device: Device | str | None = None,
    progress: Progress | None = None,
    **format_options: Any,
) -> Cleaned:
    """Write the labels without objects smaller than ``min_size`` voxels.

    An object is all voxels of one class that touch by a face, an edge or a corner. The volume is read twice, slab by
    slab, so it may be larger than the memory.

    Parameters
    ----------
    labels : Volume, path or array
        Label values 0..255.
    path : str or path
        The new volume (uint8) with the classes, colours, metadata and voxel size of the old one.
    min_size : int
        Voxels of the smallest object that stays.
    fill : bool
        Give the voxels of a removed object the value, 0 included, that most of the voxels at its faces have (the
        smaller value where two tie); voxels of other removed objects count only once these have their new value.
        Otherwise removed voxels become 0.
    classes : collection of int, optional
        Values whose objects may be removed; by default all but 0.
    overwrite : bool
    slab_planes : int, optional
        Planes in memory at once; the result does not depend on it.
    device : str or Device, optional
        ``"cuda"``: objects are found on the GPU, by cuCIM; the result is the same. Default: the CPU.
    progress : callable, optional
        Called with (planes done, twice the planes in all).
    **format_options
        Of `gpu_tomoclass.volumes.opening.create_volume`.

    Raises
    ------
    UsageError
        If the output is the input or of no known format.
    DataError
        If the output exists, or the volume holds no labels.
    ResourceError
        If the memory does not hold a slab, or the GPU or cuCIM is missing; raised before the work.
    """
    if min_size < 1:
        raise UsageError(f"a smallest object of {min_size} voxels", do="use 1 or more")
    labels = open_volume(labels)
    target: dict[str, Any] = {"inputs": labels.inputs(), "overwrite": overwrite, **format_options}
    check_volume_target(path, dtype=np.uint8, shape=labels.shape, classes=labels.classes, **target)
    wanted = range(1, 256) if classes is None else classes
    finder = ObjectFinder(labels, classes=wanted, slab_planes=slab_planes, device=device)
    nz = labels.shape[0]
    settings = {"min_size": min_size, "fill": fill, "classes": None if classes is None else sorted(classes)}
    writer = create_volume(
        path,
        shape=labels.shape,
        dtype=np.uint8,
        voxel_size=labels.voxel_size,
        classes=labels.classes,
        metadata={**labels.metadata, "cleaned": {"made_by": f"gpu_tomoclass {__version__}", **settings}},
        **target,
    )
    with writer:
        sizes, values, contacts = [np.zeros(1, np.int64)], [np.zeros(1, np.uint8)], []
        for slab in finder.slabs(None if progress is None else lambda done, _: progress(done, 2 * nz)):
            of_slab, of_value = _sizes(slab)
            sizes.append(of_slab)
            values.append(of_value)
            if fill:
                contacts.append(_contacts(slab, np.concatenate(sizes[-2:]), min_size))
        final = finder.final()
        size = np.bincount(final, np.concatenate(sizes)).astype(np.int64)
        value = np.zeros(len(size), np.uint8)
        value[final] = np.concatenate(values)
        small = size < min_size
        small[0] = False  # what is no object
        new = np.where(small, 0, value).astype(np.uint8)
        if fill and small.any():
            new = _filled(new, small=small, contacts=contacts, final=final)
        table = new[final]
        for slab in finder.slabs(None if progress is None else lambda done, _: progress(nz + done, 2 * nz)):
            cleaned = np.where(slab.numbers > 0, table[slab.numbers], slab.labels)
            for i, plane in enumerate(cleaned):
                writer.write_plane(slab.first + i, plane)
    return Cleaned(
        objects=_counts(value[small]),
        kept=_counts(value[1:][~small[1:]]),
        voxels=int(size[small][new[small] != value[small]].sum()),
    )


def _sizes(slab: ObjectSlab) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in the slab (int64) and label value (uint8) of each of its numbers."""
    inside = slab.numbers > 0
    number = slab.numbers[inside] - (slab.last - slab.count + 1)
    values = np.zeros(slab.count, np.uint8)
    values[number] = slab.labels[inside]
    return np.bincount(number, minlength=slab.count), values


def _contacts(slab: ObjectSlab, sizes: np.ndarray, min_size: int) -> np.ndarray:
    """Faces between objects that may be small and what is beside them: (3, n) int64 of number, other, faces.

    ``other`` is a number, or -1 - value where the other voxel belongs to no object. ``sizes`` are those, so far, of the
    last ``len(sizes)`` numbers, which reach back to the slab before.
    """
    own = np.where(slab.numbers > 0, slab.numbers, -1 - slab.labels.astype(np.int64))
    may_be_small = np.append(sizes < min_size, False)  # the last for what is no object
    first = slab.last + 1 - len(sizes)
    found = []
    for axis in range(3):
        along = own
        if axis == 0 and slab.before is not None and slab.numbers_before is not None:
            before = np.where(slab.numbers_before > 0, slab.numbers_before, -1 - slab.before.astype(np.int64))
            along = np.concatenate((before[None], own))
        along = np.moveaxis(along, axis, 0)
        small = may_be_small[np.where(along > 0, along - first, -1)]
        for here, there in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            chosen = small[here] & (along[here] != along[there])
            found.append(_summed(np.stack((along[here][chosen], along[there][chosen])), None))
    number, other, faces = np.concatenate(found, axis=1)
    return _summed(np.stack((number, other)), faces)


def _summed(pairs: np.ndarray, faces: np.ndarray | None) -> np.ndarray:
    """Equal columns of (2, n) pairs as one: (3, m) int64 of number, other, faces."""
    order = np.lexsort(pairs)
    pairs = pairs[:, order]
    starts = np.flatnonzero(np.append(True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0))[: pairs.shape[1]])
    amounts = np.ones(pairs.shape[1], np.int64) if faces is None else faces[order]
    totals = np.add.reduceat(amounts, starts) if len(starts) else amounts
    return np.vstack((pairs[:, starts], totals))


def _filled(new: np.ndarray, *, small: np.ndarray, contacts: list[np.ndarray], final: np.ndarray) -> np.ndarray:
    """New value of every object, small ones by their neighbours: (n_objects + 1,) uint8."""
    number, other, faces = np.concatenate(contacts, axis=1)
    obj = final[number]
    other = np.where(other > 0, final[np.maximum(other, 0)], other)
    wanted = small[obj] & (obj != other)
    obj, other, faces = obj[wanted], other[wanted], faces[wanted]
    known, new = ~small, new.copy()
    while len(obj):
        value = np.where(other > 0, new[np.maximum(other, 0)], -1 - other)
        ready = (other < 0) | known[np.maximum(other, 0)]
        if not ready.any():
            break  # nothing but removed objects: they become 0
        votes = _summed(np.stack((obj[ready], value[ready])), faces[ready])
        best = np.lexsort((votes[1], -votes[2], votes[0]))  # most faces first, of equals the smaller value
        winners, first = np.unique(votes[0][best], return_index=True)
        new[winners] = votes[1][best][first]
        known[winners] = True
        left = ~known[obj]
        obj, other, faces = obj[left], other[left], faces[left]
    return new


def _counts(values: np.ndarray) -> dict[int, int]:
    found, n = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), n.tolist(), strict=True))
