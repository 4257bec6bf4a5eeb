"""The features of one plane as a file, to be looked at in Fiji or napari."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.place import aspect_of
from gpu_tomoclass.features.prepare import prepare_slab
from gpu_tomoclass.volumes import Volume, create_volume


@dataclass(frozen=True)
class FeatureFile:
    """Seconds per family and the notes of a :func:`write_features` run."""

    seconds: Mapping[str, float]
    notes: Sequence[str]


def write_features(
    volume: Volume,
    bank: FeatureBank,
    *,
    plane: int,
    output: str | PathLike[str],
    intensity: str = "auto",
    nan: str = "error",
    device: Device | None = None,
    overwrite: bool = False,
) -> FeatureFile:
    """Compute every channel of the bank on one plane and write them, named, as float32.

    Parameters
    ----------
    volume : Volume
    bank : FeatureBank
    plane : int
        Counted from 0.
    output : path
        ``.tif`` (slice labels carry the channel names) or ``.ome.zarr``.
    intensity, nan
        See :mod:`gpu_tomoclass.features.intensity`.
    device : Device, optional
        Default the first that works.
    overwrite : bool

    Raises
    ------
    UsageError
        If there is no such plane.
    DataError
        If the plane cannot be read or used, or the output exists.
    """
    if not 0 <= plane < volume.shape[0]:
        raise UsageError(f"there is no plane {plane}, only 0 to {volume.shape[0] - 1}", where=volume.path)
    scale = IntensityScale.for_volume(volume, mode=intensity)
    seconds: dict[str, float] = {}
    writer = create_volume(
        output,
        shape=(1, *volume.shape[1:]),
        dtype=np.dtype(np.float32),
        channels=bank.channels,
        voxel_size=volume.voxel_size,
        metadata={
            "made_by": f"gpu_tomoclass {__version__}",
            "bank": bank.to_dict(),
            "plane": plane,
            "intensity": scale.to_dict(),
            "input": volume.fingerprint(),
        },
        overwrite=overwrite,
        inputs=volume.inputs(),
    )
    with writer:
        halo = bank.z_reach(aspect_of(volume.voxel_size))
        slab = prepare_slab(volume, plane, plane + 1, halo=halo, scale=scale, nan=nan)
        engine = FeatureEngine(choose_device() if device is None else device, bank.blocks)
        watch = engine.device.stopwatch()
        watch.start()
        channels = engine.compute(slab.images, place=slab.place, watch=watch)
        writer.write_plane(0, engine.device.numpy(channels)[:, 0])
        watch.add_to(seconds)
    return FeatureFile(seconds, slab.notes)
