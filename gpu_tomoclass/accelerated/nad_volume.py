"""Nonlinear anisotropic diffusion of volumes on any device; on those that run kernels by ``kernels/nad_volume.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.base import Device
from gpu_tomoclass.reference.nad import NadParameters
from gpu_tomoclass.reference.nad_volume import nad_volume as reference_nad_volume


def nad_volume(volume: npt.NDArray[Any], *, device: Device, parameters: NadParameters) -> npt.NDArray[np.float32]:
    """Denoise a volume in three dimensions: see :mod:`gpu_tomoclass.reference.nad_volume`.

    Parameters
    ----------
    volume : ndarray
        (nz, ny, nx), finite.
    device : Device
    parameters : NadParameters
        Of 3 dimensions.

    Returns
    -------
    ndarray
        (nz, ny, nx) float32.

    Raises
    ------
    UsageError
        If the noise area is outside of the volume.
    """
    return reference_nad_volume(volume, parameters).astype(np.float32)
