"""Planes of an array on a GPU as the features see them; their values stay there.

The same rules and the same bits as :mod:`gpu_tomoclass.features.prepare`. The host learns where voxels are not finite
(and looks for their nearest neighbours there), and of float volumes two pairs of values around the percentiles.
"""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.device import Array, Device
from gpu_tomoclass.errors import DataError
from gpu_tomoclass.features.intensity import PERCENTILES, IntensityScale, sampled_planes
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.prepare import PreparedPlane, PreparedSlab, check_nan_policy, nearest_finite

NAME = "cupy array"  # for messages


def scale_on_device(device: Device, planes: Array, *, mode: str = "auto") -> IntensityScale:
    """The scale for planes (nz, ny, nx) on the device; see :meth:`IntensityScale.for_volume`."""
    known = IntensityScale.of_type(np.dtype(planes.dtype), mode=mode, where=NAME)
    if known is not None:
        return known
    sampled = sampled_planes(len(planes))
    found = device.percentiles([planes[z] for z in sampled], PERCENTILES)
    if found is None:
        raise DataError(f"no finite voxel in {len(sampled)} sampled planes", where=NAME)
    return IntensityScale.of_range(*found)


def prepare_on_device(
    device: Device, planes: Array, place: Place, *, scale: IntensityScale, nan: str = "error"
) -> tuple[Array, PreparedSlab]:
    """Prepare the planes of a slab.

    Parameters
    ----------
    device : Device
    planes : array on the device
        (nz, ny, nx): the whole volume, of any real type.
    place : Place
        Which of them are the slab.
    scale : IntensityScale
    nan : {"error", "fill", "mask"}
        See :func:`gpu_tomoclass.features.prepare.prepare_plane`.

    Returns
    -------
    images : array on the device
        (planes of the slab, ny, nx) float32, finite.
    slab : PreparedSlab
        The same images, and where voxels were filled.

    Raises
    ------
    DataError
        If voxels are not finite and the policy is ``"error"``, or no voxel of a plane is finite, or values exceed
        float32.
    """
    check_nan_policy(nan)
    first, last = place.first, place.first + place.n_planes
    values, filled = planes[first:last], dict[int, np.ndarray]()
    bad = device.not_finite(values) if np.dtype(planes.dtype).kind == "f" else None
    if bad is not None:
        which = [i for i in range(len(bad)) if bad[i].any()]
        if nan == "error":
            listed = ", ".join(str(first + i) for i in which[:10])
            raise DataError(
                f"{int(bad.sum())} voxels of planes {listed} are NaN or infinite", where=NAME, do='give nan="fill"'
            )
        targets, sources = [], []
        for i in which:
            if bad[i].all():
                raise DataError(f"plane {first + i} has no finite voxel", where=NAME, do="leave it out")
            at, start = np.flatnonzero(bad[i]), i * bad[i].size
            targets.append(start + at)
            sources.append(start + np.ravel_multi_index(nearest_finite(bad[i]), bad[i].shape).ravel()[at])
            filled[i] = bad[i]
        values = device.moved(values, np.concatenate(sources), np.concatenate(targets))
    images = device.scaled(values, gain=scale.gain, offset=scale.offset, clip=scale.clip, points=scale.points)
    if not device.all_finite(images):
        raise DataError(
            f"planes {first} to {last - 1} have values beyond float32", where=NAME, do='use intensity="auto"'
        )
    device.synchronize()  # those who compute have streams of their own
    return images, PreparedSlab([PreparedPlane(images[i], filled.get(i)) for i in range(last - first)], place)
