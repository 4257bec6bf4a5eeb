"""The channels of planes as arrays, for whoever wants the features themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu_tomoclass.device import Array, Device, choose_device, gpu_of
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.place import Place, aspect_of
from gpu_tomoclass.features.planes_on_gpu import prepare_on_device, scale_on_device
from gpu_tomoclass.features.prepare import PreparedPlane, prepare_slab
from gpu_tomoclass.features.reference.volume_source import Aspect
from gpu_tomoclass.volumes import Planes, Volume, checked_voxel_size, open_volume

SLAB = 8  # planes at once where filters look across planes, so that not each pays for a halo


class Channels(NamedTuple):
    """Features of planes.

    Attributes
    ----------
    channels : numpy.ndarray or cupy.ndarray
        (n_channels, ny, nx) float32 of one plane, (n_channels, nz, ny, nx) of several.
    names : tuple of str
        TWS's names of the channels.
    """

    channels: Any
    names: tuple[str, ...]


def make_bank(features: str | Sequence[str] | FeatureBank) -> FeatureBank:
    """The bank that a set's name, family names or a bank stand for; see :meth:`FeatureBank.create`."""
    return features if isinstance(features, FeatureBank) else FeatureBank.create(features)


def compute_features(
    planes: Planes | Volume,
    features: str | Sequence[str] | FeatureBank = "paper",
    *,
    intensity: str | IntensityScale = "auto",
    nan: str = "error",
    voxel_size: float | Sequence[float] | None = None,
    device: Device | str = "auto",
) -> Channels:
    """Compute every channel of a bank on one or several planes.

    Parameters
    ----------
    planes : array or Volume
        (ny, nx), or (nz, ny, nx); NumPy, Zarr, Dask; or CuPy, then the channels are CuPy's, and no value goes through
        the host's memory (but for families that have no kernel, such as exact Gabor).
    features : str, sequence of str or FeatureBank
        A name of :data:`~gpu_tomoclass.features.families.FEATURE_SETS`, family names, or a bank with its sigmas.
    intensity : {"auto", "none"} or IntensityScale
        ``"auto"`` is what training does: integers as they are (signed 16 bit plus 32768, as ImageJ), floats scaled to a
        16-bit-like range by percentiles of these planes. ``"none"`` leaves every value as it is.
    nan : {"error", "fill"}
        Whether voxels that are not finite are refused or take the value of the nearest that is.
    voxel_size : float or (z, y, x), optional
        Edge of a voxel in nm: features that look across planes are told by it how far the planes are apart; default
        as far as pixels.
    device : str or Device
        ``"auto"`` is the first that works.

    Returns
    -------
    (channels, names)

    Raises
    ------
    UsageError
        If a feature, option or the planes are not possible.
    DataError
        If voxels are not finite.
    """
    bank = make_bank(features)
    if nan not in ("error", "fill"):
        raise UsageError(f"the policy for NaN {nan!r} is unknown here", do='choose "error" or "fill"')
    if isinstance(planes, Volume):
        volume, is_plane = planes, False
    else:
        array: Any = planes
        is_plane = len(getattr(array, "shape", ())) == 2
        gpu = gpu_of(array)
        if gpu is not None:
            chosen = choose_device("cuda" if device == "auto" else device, gpu)
            stack = array[None] if is_plane else array
            aspect = aspect_of(None if voxel_size is None else checked_voxel_size(voxel_size))
            channels = _on_gpu(stack, bank, chosen, aspect, intensity=intensity, nan=nan)
            return Channels(channels[:, 0] if is_plane else channels, bank.channels)
        volume = open_volume(array[None] if is_plane else array, voxel_size=voxel_size)
    scale = intensity if isinstance(intensity, IntensityScale) else IntensityScale.for_volume(volume, mode=intensity)
    engine = FeatureEngine(choose_device(device), bank.blocks)
    halo = bank.z_reach(aspect_of(volume.voxel_size))
    step = SLAB if halo else 1
    held: dict[int, PreparedPlane] = {}
    channels = np.empty((bank.n_channels, *volume.shape), np.float32)
    for z in range(0, len(volume), step):
        slab = prepare_slab(volume, z, min(z + step, len(volume)), halo=halo, scale=scale, nan=nan, held=held)
        channels[:, z : z + step] = engine.device.numpy(engine.compute(slab.images, place=slab.place))
    return Channels(channels[:, 0] if is_plane else channels, bank.channels)


def _on_gpu(
    planes: Array, bank: FeatureBank, gpu: Device, aspect: Aspect, *, intensity: str | IntensityScale, nan: str
) -> Array:
    """Channels (n_channels, nz, ny, nx) of CuPy's planes (nz, ny, nx)."""
    if not gpu.has_own_memory:
        raise UsageError(f"the {gpu.name} device cannot take CuPy arrays", do='choose "auto", or give NumPy arrays')
    if len(planes.shape) != 3:
        raise DataError(f"planes have {len(planes.shape)} axes, not two or three (z, y, x)", where="cupy array")
    depth = len(planes)
    scale = intensity if isinstance(intensity, IntensityScale) else scale_on_device(gpu, planes, mode=intensity)
    engine, halo = FeatureEngine(gpu, bank.blocks), bank.z_reach(aspect)
    channels = gpu.empty((bank.n_channels, *planes.shape), np.float32)
    step = SLAB if halo else 1
    for z in range(0, depth, step):
        stop = min(z + step, depth)
        place = Place.with_halo(z, stop, depth=depth, halo=halo, aspect=aspect)
        images, _ = prepare_on_device(gpu, planes, place, scale=scale, nan=nan)
        gpu.copy(engine.compute(images, place=place), channels[:, z:stop])
    gpu.synchronize()
    return channels
