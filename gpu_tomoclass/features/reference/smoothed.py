"""Planes smoothed along z alone, of which families of planes are computed (``z_gaussian_blur``, ``z_hessian``, ..).

A Gaussian along z of standard deviation z voxels of x (times the aspect of z: a distance, whatever the voxels), with
the kernel, mirrors and order of sums of :mod:`gpu_tomoclass.features.reference.volume_blur`. A volume of one plane is
not smoothed. Bilateral and Lipschitz stretch a smoothed plane by its own minimum and maximum.
"""

from __future__ import annotations

from gpu_tomoclass.features.reference.source import FeatureSource
from gpu_tomoclass.features.reference.volume_blur import blur_kernel, running_sums
from gpu_tomoclass.features.reference.volume_source import Image, VolumeSource, mirrored, taps


def along_z(source: VolumeSource, sigma: float) -> Image:
    """The wanted planes smoothed along z: (n, ny, nx) float32."""
    nz, ny, nx = source.image.shape
    if source.depth == 1:
        return source.image
    kernel = blur_kernel(sigma * source.aspect[0])
    planes = mirrored(taps(source.start, source.stop, len(kernel) - 1), source.depth)
    return running_sums(source.image.reshape(1, nz, ny * nx), kernel, source.within_slab(planes)).reshape(source.shape)


def smoothed_planes(source: VolumeSource, sigma: float) -> list[FeatureSource]:
    """Each wanted plane smoothed along z; made once per slab and sigma."""
    if sigma not in source.smoothed:
        source.smoothed[sigma] = [FeatureSource(plane) for plane in along_z(source, sigma)]
    return source.smoothed[sigma]
