"""Z_context and Z_blur: planes smoothed along z, then filtered within the plane; ours, not TWS's.

A plane's noise is its own, while the specimen goes on above and below. Gaussian along z of standard deviation sigma
voxels of x (times the aspect of z: a distance, whatever the voxels), with the kernel, mirrors and order of sums of
:mod:`gpu_tomoclass.features.reference.volume_blur`; then of the smoothed plane TWS's ``Gaussian_blur`` of four sigmas,
and for Z_context ``Median`` of three radii besides. A volume of one plane is not smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.features.reference.blur import gaussian_blur, kernel_radius
from gpu_tomoclass.features.reference.disk import disk_half_widths
from gpu_tomoclass.features.reference.ranks import median
from gpu_tomoclass.features.reference.source import FeatureSource
from gpu_tomoclass.features.reference.volume_blur import blur_kernel, running_sums
from gpu_tomoclass.features.reference.volume_source import Image, VolumeSource, mirrored, taps

BLURS = (1.0, 2.0, 4.0, 8.0)  # TWS's sigmas: standard deviations of 0.4 times as much
MEDIANS = (1.0, 2.0, 4.0)  # radii


def reach_in_plane() -> int:
    """Distance in pixels over which the filters within the plane look."""
    return max(kernel_radius(BLURS[-1]), len(disk_half_widths(MEDIANS[-1])) // 2)


def along_z(source: VolumeSource, sigma: float) -> Image:
    """The wanted planes smoothed along z alone: (n, ny, nx) float32."""
    nz, ny, nx = source.image.shape
    if source.depth == 1:
        return source.image
    kernel = blur_kernel(sigma * source.aspect[0])
    planes = mirrored(taps(source.start, source.stop, len(kernel) - 1), source.depth)
    return running_sums(source.image.reshape(1, nz, ny * nx), kernel, source.within_slab(planes)).reshape(source.shape)


def z_context(source: VolumeSource, *, sigma: float) -> Image:
    """The blurs, then the medians: (7, n, ny, nx) float32."""
    return _filtered(along_z(source, sigma), MEDIANS)


def z_blur(source: VolumeSource, *, sigma: float) -> Image:
    """The blurs: (4, n, ny, nx) float32."""
    return _filtered(along_z(source, sigma), ())


def _filtered(planes: Image, medians: Sequence[float]) -> Image:
    result = np.empty((len(BLURS) + len(medians), *planes.shape), np.float32)
    for i, plane in enumerate(planes):
        for k, blur in enumerate(BLURS):
            result[k, i] = gaussian_blur(plane, blur)
        of_plane = FeatureSource(plane)
        for k, radius in enumerate(medians, start=len(BLURS)):
            result[k, i] = median(of_plane, radius=radius)[0]
    return result
