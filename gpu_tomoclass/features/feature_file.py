"""The features of planes as a file, to be looked at in Fiji or napari."""

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
from gpu_tomoclass.features.prepare import PreparedPlane, prepare_slab
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume, create_volume, moved, with_place

SLAB_BYTES = 2**29  # channels in memory at once where features look across planes


@dataclass(frozen=True)
class FeatureFile:
    """Seconds per family, the notes and the number of planes of a :func:`write_features` run."""

    seconds: Mapping[str, float]
    notes: Sequence[str]
    n_planes: int


def write_features(
    volume: Volume,
    bank: FeatureBank,
    *,
    plane: int | None = None,
    output: str | PathLike[str],
    intensity: str = "auto",
    nan: str = "error",
    device: Device | str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> FeatureFile:
    """Compute every channel of the bank on one plane or on all and write them, named, as float32.

    Parameters
    ----------
    volume : Volume
    bank : FeatureBank
    plane : int, optional
        Counted from 0; default all, slab by slab.
    output : path
        ``.tif`` (a hyperstack whose slice labels carry the channel names) or ``.ome.zarr``.
    intensity, nan
        See :mod:`gpu_tomoclass.features.intensity`.
    device : str or Device
        ``"auto"`` is the first that works.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    UsageError
        If there is no such plane.
    DataError
        If the plane cannot be read or used, or the output exists.
    """
    if plane is not None and not 0 <= plane < volume.shape[0]:
        raise UsageError(f"there is no plane {plane}, only 0 to {volume.shape[0] - 1}", where=volume.path)
    start, stop = (0, volume.shape[0]) if plane is None else (plane, plane + 1)
    halo = bank.z_reach(aspect_of(volume.voxel_size))
    scale = IntensityScale.for_volume(volume, mode=intensity)
    seconds: dict[str, float] = {}
    metadata = {
        "made_by": f"gpu_tomoclass {__version__}",
        "bank": bank.to_dict(),
        **({} if plane is None else {"plane": plane}),
        "intensity": scale.to_dict(),
        "input": volume.fingerprint(),
    }
    writer = create_volume(
        output,
        shape=(stop - start, *volume.shape[1:]),
        dtype=np.dtype(np.float32),
        channels=bank.channels,
        voxel_size=volume.voxel_size,
        metadata=with_place(metadata, moved(volume.metadata, first=start, voxel_size=volume.voxel_size)),
        overwrite=overwrite,
        inputs=volume.inputs(),
    )
    notes: list[str] = []
    held: dict[int, PreparedPlane] = {}  # halos overlap
    at_once = max(1, SLAB_BYTES // (4 * bank.n_channels * volume.shape[1] * volume.shape[2])) if halo else 1
    with writer:
        engine = FeatureEngine(choose_device(device), bank.blocks)
        for first in range(start, stop, at_once):
            last = min(first + at_once, stop)
            slab = prepare_slab(volume, first, last, halo=halo, scale=scale, nan=nan, held=held)
            watch = engine.device.stopwatch()
            watch.start()
            channels = engine.device.numpy(engine.compute(slab.images, place=slab.place, watch=watch))
            for i in range(last - first):
                writer.write_plane(first - start + i, channels[:, i])
            watch.add_to(seconds)
            notes += slab.notes
            if progress is not None:
                progress(last - start, stop - start)
    return FeatureFile(seconds, notes, stop - start)
