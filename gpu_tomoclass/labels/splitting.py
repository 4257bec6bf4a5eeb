"""Objects cut where particles touch: distance transform, markers, watershed.

Each voxel of an object has a distance ``d`` to the nearest voxel outside of it. A particle is a maximum of ``d``, and
two particles meet at a neck, the saddle between their maxima. They are told apart where ``neck + e < share * (d + e)``,
with ``d`` the lower of the two maxima and ``e`` the edge of a voxel, which keeps steps of single voxels from being
necks. With ``log(d + e)`` this is a difference of heights, ``log(1 / share)``, so the markers are its maxima of that
dynamic (by reconstruction), and what is a neck does not depend on the size of the particles. Voxels are then given to
markers by flooding ``-d`` (scikit-image's ``watershed``; P. Soille, "Morphological Image Analysis", 2003, chapters 6
and 9).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
from scipy import ndimage

from gpu_tomoclass.device import Device, available_bytes
from gpu_tomoclass.errors import ResourceError, UsageError
from gpu_tomoclass.labels.evaluate import as_labels
from gpu_tomoclass.labels.image_tools import ImageTools, image_tools, in_order
from gpu_tomoclass.labels.objects import ObjectSlab, object_values, planes_at_once
from gpu_tomoclass.outputs import size_text
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume

NECK = 0.85
BYTES_PER_VOXEL = 120  # of the volume, measured where one object fills it; less otherwise


class SplitObjects:
    """The objects of a label volume, cut where particles touch; used like `ObjectFinder`, but in memory as a whole.

    Parameters
    ----------
    labels : Volume
        Label values 0..255.
    classes : collection of int
        Label values whose connected voxels are objects.
    neck : float
        Two particles are told apart where the neck between them is thinner than this share of the thinner one.
    slab_planes : int, optional
        Planes that are measured at once; the result does not depend on it.
    device : str or Device, optional
        ``"cuda"``: components and distances on the GPU, by cuCIM; the watershed, which cuCIM does not have, on the CPU.

    Raises
    ------
    UsageError
        If ``neck`` is not between 0 and 1.
    ResourceError
        If the memory does not hold the volume.
    """

    def __init__(
        self,
        labels: Volume,
        *,
        classes: Collection[int],
        neck: float = NECK,
        slab_planes: int | None = None,
        device: Device | str | None = None,
    ) -> None:
        self._is_object = object_values(classes)
        self.slab_planes = planes_at_once(labels, slab_planes)
        if not 0 < neck < 1:
            raise UsageError(f"a neck of {neck} of the particle", do="use a share between 0 and 1, such as 0.85")
        self._volume, self._neck, self._tools = labels, neck, image_tools(device)
        self._spans: list[tuple[int, int]] = []
        needed, available = BYTES_PER_VOXEL * math.prod(labels.shape), available_bytes()
        if available is not None and needed > available:
            raise ResourceError(
                f"telling touching particles apart needs {size_text(needed)} of memory, and {size_text(available)} are "
                "free",
                where=labels.path,
                do="measure a part (gpu-tomoclass substack), or without --split",
            )

    def slabs(self, progress: Progress | None = None) -> Iterator[ObjectSlab]:
        """The slabs from the first to the last."""
        nz = self._volume.shape[0]
        labels = np.empty(self._volume.shape, np.uint8)
        for z in range(nz):
            if progress is not None and z % self.slab_planes == 0:
                progress(z // 2, nz)  # splitting takes about as long as the rest
            labels[z] = as_labels(self._volume.plane(z), what=f"{self._volume.path}: plane {z}")
        values = np.where(self._is_object[labels], labels + np.uint16(1), np.uint16(0))
        objects, _ = self._tools.components(values)
        del values
        size = self._volume.voxel_size or (1.0, 1.0, 1.0)
        numbers = split_objects(objects, voxel_size=size, neck=self._neck, tools=self._tools)
        del objects
        self._spans = []
        for first in range(0, nz, self.slab_planes):
            if progress is not None:
                progress((nz + first) // 2, nz)
            part = slice(first, min(nz, first + self.slab_planes))
            found = numbers[part][numbers[part] > 0]
            lowest, last = (int(found.min()), int(found.max())) if found.size else (1, 0)
            self._spans.append((lowest, last))
            around = slice(max(0, first - 1), part.stop + 1)
            yield ObjectSlab(
                first,
                labels[part],
                numbers[part],
                last - lowest + 1,
                last,
                labels[first - 1] if first else None,
                labels[part.stop] if part.stop < nz else None,
                None,
                numbers[around],
            )
        if progress is not None:
            progress(nz, nz)

    def final(self) -> np.ndarray:
        """Particle of each number of each slab, one slab after the other, after a 0: int64."""
        return np.concatenate([[0], *(np.arange(lowest, last + 1) for lowest, last in self._spans)])


def split_objects(
    objects: np.ndarray, *, voxel_size: tuple[float, float, float], neck: float, tools: ImageTools
) -> np.ndarray:
    """Number the particles of which objects consist.

    Parameters
    ----------
    objects : numpy.ndarray
        (nz, ny, nx) int64, 0 for no object.
    voxel_size : (float, float, float)
        (z, y, x).
    neck : float
        See the module.
    tools : ImageTools

    Returns
    -------
    numpy.ndarray
        (nz, ny, nx) int64, 0 and 1..n in the order of the first voxel.
    """
    numbers, count = np.zeros(objects.shape, np.int64), 0
    for i, box in enumerate(ndimage.find_objects(objects), start=1):
        if box is None:
            continue
        # A rim of what is beside the object; where the volume ends, the object is taken to go on as it is.
        rim = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        inside = objects[rim] == i
        parts, n = _split(inside, voxel_size=voxel_size, neck=neck, tools=tools)
        numbers[rim][inside] = parts[inside] + count
        count += n
    return in_order(numbers, count)


def _split(
    inside: np.ndarray, *, voxel_size: tuple[float, float, float], neck: float, tools: ImageTools
) -> tuple[np.ndarray, int]:
    """Particles 1..n of one object: (nz, ny, nx) int, n."""
    from skimage.measure import label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    whole = inside.astype(np.int64), 1
    if inside.all():
        return whole
    edge = float(np.cbrt(np.prod(voxel_size)))
    distance = tools.distances(inside, sampling=voxel_size).astype(np.float32)
    height = np.log1p(distance / np.float32(edge))
    # Not skimage's h_maxima, which keeps maxima of exactly the same height apart, however shallow the saddle.
    lowered = reconstruction(height - np.float32(np.log(1 / neck)), height, footprint=np.ones((3, 3, 3)))
    markers = label(local_maxima(lowered, connectivity=3), connectivity=3)
    n = int(markers.max())
    if n < 2:
        return whole
    return watershed(-distance, markers, mask=inside, connectivity=3), n
