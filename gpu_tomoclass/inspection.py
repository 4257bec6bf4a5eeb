"""The features of one plane as a file, to be looked at in Fiji or napari."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.cache import block_values
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.intensity import IntensityScale, prepare_plane
from gpu_tomoclass.planes import Progress
from gpu_tomoclass.volume import Volume, create_volume


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
    overwrite: bool = False,
    progress: Progress | None = None,
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
        See :mod:`gpu_tomoclass.intensity`.
    overwrite : bool
    progress : callable, optional
        Called with (channels done, channels in all).

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
    )
    with writer:
        prepared = prepare_plane(volume, plane, scale=scale, nan=nan)
        channels = np.empty((bank.n_channels, *volume.shape[1:]), dtype=np.float32)
        for block, values in block_values(bank, prepared.image, blocks=bank.blocks, timings=seconds):
            channels[block.start : block.stop] = values
            if progress is not None:
                progress(block.stop, bank.n_channels)
        writer.write_plane(0, channels)
    return FeatureFile(seconds, prepared.notes)
