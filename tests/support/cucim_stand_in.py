"""Stands in for cuCIM 26.10 on a simulated GPU: what this package asks of it, by scikit-image and SciPy.

Arrays must come as the GPU's, and answers are such; components are numbered in another order, as cuCIM promises none.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import measure

from gpu_tomoclass.device import Device


def modules(device: Device) -> dict[str, types.ModuleType]:
    """Modules of cuCIM by name."""

    def label(label_image: Any, background: Any = None, return_num: bool = False, connectivity: Any = None) -> Any:
        assert device.holds(label_image)
        numbers, count = measure.label(device.numpy(label_image), background, True, connectivity)
        numbers = np.where(numbers > 0, count + 1 - numbers, 0).astype(np.int32)
        return (device.array(numbers), count) if return_num else device.array(numbers)

    def distance_transform_edt(
        image: Any, sampling: Any = None, return_distances: bool = True, return_indices: bool = False,
        distances: Any = None, indices: Any = None, *, block_params: Any = None, float64_distances: bool = False,
    ) -> Any:  # fmt: skip
        assert device.holds(image)
        assert float64_distances  # else they are float32
        return device.array(ndimage.distance_transform_edt(device.numpy(image), sampling))

    found = {}
    for name, function in (
        ("cucim.skimage.measure", label),
        ("cucim.core.operations.morphology", distance_transform_edt),
    ):
        found[name] = types.ModuleType(name)
        setattr(found[name], function.__name__, function)
    return found
