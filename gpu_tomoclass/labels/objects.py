"""Objects: connected voxels of one class, found slab by slab in label volumes of any size.

Two voxels of one class belong together when they touch by a face, an edge or a corner (26 neighbours). Each slab is
labelled on its own (``image_tools.py``) with numbers that go on from slab to slab; numbers that meet across two
slabs are joined at the end. So memory holds one slab and a few numbers per object, whatever the volume's size, and the
objects do not depend on the thickness of the slabs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from gpu_tomoclass.device import Device, available_bytes
from gpu_tomoclass.errors import ResourceError, UsageError
from gpu_tomoclass.labels.evaluate import as_labels
from gpu_tomoclass.labels.image_tools import image_tools
from gpu_tomoclass.outputs import size_text
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume

SLAB_VOXELS = 4_000_000  # enough that the time for joining slabs does not show
BYTES_PER_VOXEL = 80  # of a slab's memory while it is labelled and measured, where every voxel is an object's


@dataclass(frozen=True)
class ObjectSlab:
    """A run of planes with its objects.

    Attributes
    ----------
    first : int
        Plane of the volume.
    labels : (n, ny, nx) uint8
        Label values of the slab, all classes.
    numbers : (n, ny, nx) int64
        Preliminary number of the object of each voxel, 0 for voxels of no object; see `ObjectFinder.final`.
    count : int
        The slab's numbers are ``last - count + 1 .. last``.
    last : int
    before, after : (ny, nx) uint8 or None
        Labels of the planes next to the slab; None at the ends of the volume.
    numbers_before : (ny, nx) int64 or None
        Numbers of the plane before.
    around : (m, ny, nx) int64 or None
        Where objects of one class touch: ``numbers`` with those of the planes before and after, where there are such.
    """

    first: int
    labels: np.ndarray
    numbers: np.ndarray
    count: int
    last: int
    before: np.ndarray | None
    after: np.ndarray | None
    numbers_before: np.ndarray | None
    around: np.ndarray | None = None


class ObjectFinder:
    """Finds the objects of a label volume.

    Parameters
    ----------
    labels : Volume
        Label values 0..255.
    classes : collection of int
        Label values whose connected voxels are objects, each class on its own.
    slab_planes : int, optional
        Planes in memory at once; by default about 4 million voxels.
    device : str or Device, optional
        ``"cuda"``: slabs are labelled on the GPU, by cuCIM; default, and all others: on the CPU.

    Raises
    ------
    ResourceError
        If the memory does not hold a slab.
    """

    def __init__(
        self,
        labels: Volume,
        *,
        classes: Collection[int],
        slab_planes: int | None = None,
        device: Device | str | None = None,
    ) -> None:
        self._is_object = object_values(classes)
        self.slab_planes = planes_at_once(labels, slab_planes)
        self._volume, self._tools = labels, image_tools(device)
        self._pairs: list[np.ndarray] = []
        self._n_numbers = 0
        needed, available = self.needed_bytes, available_bytes()
        if available is not None and needed > available:
            raise ResourceError(
                f"finding objects in slabs of {self.slab_planes} planes needs {size_text(needed)} of memory, and "
                f"{size_text(available)} are free",
                where=labels.path,
                do="close other programs or use a machine with more memory",
            )

    @property
    def needed_bytes(self) -> int:
        """Memory for a slab, at most; objects take some 100 bytes each on top, up to 1.5 KB where they are filled."""
        _, ny, nx = self._volume.shape
        return BYTES_PER_VOXEL * (self.slab_planes + 2) * ny * nx

    def slabs(self, progress: Progress | None = None) -> Iterator[ObjectSlab]:
        """The slabs from the first to the last; iterating again gives the same numbers."""
        nz = self._volume.shape[0]
        self._pairs, last = [], 0
        before: np.ndarray | None = None
        numbers_before: np.ndarray | None = None
        after: np.ndarray | None = None
        for first in range(0, nz, self.slab_planes):
            if progress is not None:
                progress(first, nz)
            stop = min(nz, first + self.slab_planes)
            planes = [self._plane(z) if after is None or z > first else after for z in range(first, stop)]
            after = self._plane(stop) if stop < nz else None
            labels = np.stack(planes)
            # 0 is what cc3d leaves out, but it may be a class here: values move up by one, in 16 bits.
            values = np.where(self._is_object[labels], labels + np.uint16(1), np.uint16(0))
            numbers, count = self._tools.components(values)
            numbers[numbers > 0] += last
            last += count
            if before is not None and numbers_before is not None:
                self._pairs.append(_touching(before, numbers_before, labels[0], numbers[0]))
            yield ObjectSlab(first, labels, numbers, count, last, before, after, numbers_before)
            before, numbers_before = labels[-1], numbers[-1]
        self._n_numbers = last
        if progress is not None:
            progress(nz, nz)

    def final(self) -> np.ndarray:
        """Object of each preliminary number, after all slabs: (n_numbers + 1,) int64; 0 stays 0, objects are 1..n.

        Objects are numbered by their first voxel in the order z, y, x.
        """
        n = self._n_numbers + 1
        pairs = np.concatenate([np.empty((2, 0), np.int64), *self._pairs], axis=1)
        graph = sparse.coo_array((np.ones(pairs.shape[1], bool), pairs), shape=(n, n))
        _, joined = sparse.csgraph.connected_components(graph, directed=False)
        _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse]

    def _plane(self, z: int) -> np.ndarray:
        return as_labels(self._volume.plane(z), what=f"{self._volume.path}: plane {z}")


def object_values(classes: Collection[int]) -> np.ndarray:
    """Label values that are among ``classes``: (256,) bool."""
    if not classes or not all(0 <= value <= 255 for value in classes):
        raise UsageError(f"classes {sorted(classes)} are not some label values of 0 to 255")
    return np.isin(np.arange(256), list(classes))


def planes_at_once(labels: Volume, slab_planes: int | None) -> int:
    """``slab_planes``, or as many as have about `SLAB_VOXELS`."""
    if slab_planes is not None and slab_planes < 1:
        raise UsageError(f"slabs of {slab_planes} planes", do="use 1 or more")
    nz, ny, nx = labels.shape
    return min(nz, slab_planes or max(1, SLAB_VOXELS // (ny * nx)))


def _touching(labels: np.ndarray, numbers: np.ndarray, next_labels: np.ndarray, next_numbers: np.ndarray) -> np.ndarray:
    """Numbers of one class that touch across two planes, each pair once: (2, n_pairs) int64."""
    ny, nx = labels.shape
    keys = []
    span = int(next_numbers.max()) + 1
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            here, there = (
                (slice(max(0, -s * dy), ny - max(0, s * dy)), slice(max(0, -s * dx), nx - max(0, s * dx)))
                for s in (1, -1)
            )
            same = (labels[here] == next_labels[there]) & (numbers[here] > 0)
            keys.append(np.unique(numbers[here][same] * span + next_numbers[there][same]))
    pairs = np.unique(np.concatenate(keys))
    return np.stack((pairs // span, pairs % span))
