"""Trials of a device, each in one form: a family, the forest, NAD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.baseline import NadParameters, nad_planes, nad_volume
from gpu_tomoclass.device import FOREST, NAD, NAD_VOLUME, Device, NumpyDevice, Tolerance
from gpu_tomoclass.features import FAMILIES, ORIGINAL, FeatureBlock, FeatureEngine
from gpu_tomoclass.forest import (
    DeviceForest,
    Forest,
    device_bytes,
    device_labels,
    predict_classes,
    predict_probabilities,
    probability_bytes,
)

Run = Callable[[Any], Any]
"""What :meth:`Trial.given` gives -> (n, ..) on the device."""


class Trial(ABC):
    """One kernel, or kernels that work together.

    Attributes
    ----------
    tolerance : Tolerance
    relative : bool
        Whether it is a share of the largest value of a channel.
    """

    tolerance: Tolerance
    relative = True

    def __init__(self, inputs: npt.NDArray[np.float32]) -> None:
        self.inputs = inputs

    @abstractmethod
    def begin(self, device: Device) -> Run:
        """Make it ready on a device."""

    def given(self, device: Device, planes: npt.NDArray[np.float32] | None = None) -> Any:
        """Its inputs, or ``planes`` (nz, ny, nx) in their place."""
        return self.inputs if planes is None else planes

    def reference(self) -> npt.NDArray[Any]:
        """Results that ``inputs`` must give."""
        device = NumpyDevice()
        return device.numpy(self.begin(device)(self.inputs))

    def contradicts_itself(self, device: Device, result: Any) -> bool:
        """Tell whether what is made of the result on the device does not follow from it."""
        return False

    def n_pixels(self, given: Any) -> int:
        return int(given.size)


class FamilyTrial(Trial):
    """A family of features."""

    def __init__(self, name: str, blocks: Sequence[FeatureBlock], planes: npt.NDArray[np.float32]) -> None:
        super().__init__(planes)
        self._blocks, self.tolerance = blocks, FAMILIES.get(name, ORIGINAL).tolerance

    def begin(self, device: Device) -> Run:
        return FeatureEngine(device, self._blocks).compute


class NadTrial(Trial):
    """Some steps of NAD of planes or of a volume; noise is in the middle."""

    def __init__(self, planes: npt.NDArray[np.float32], *, dimensions: int) -> None:
        super().__init__(planes)
        self._dimensions, self.tolerance = dimensions, NAD if dimensions == 2 else NAD_VOLUME

    def begin(self, device: Device) -> Run:
        denoise = nad_planes if self._dimensions == 2 else nad_volume

        def run(planes: npt.NDArray[np.float32]) -> Any:
            area = tuple(n // 2 for n in planes.shape[::-1])[: self._dimensions]
            parameters = NadParameters(dimensions=self._dimensions, iterations=5, noise_area=area)
            return denoise(planes, device=device, parameters=parameters)

        return run


class ForestTrial(Trial):
    """Probabilities of a forest, labels and bytes made of them; ``values`` are (n_features, n_pixels)."""

    tolerance, relative = FOREST, False

    def __init__(self, forest: Forest, values: npt.NDArray[np.float32], *, by_rank: bool) -> None:
        super().__init__(values)
        self._forest, self._by_rank = forest, by_rank
        self._class_values = np.arange(1, forest.n_classes + 1, dtype=np.uint8)

    def begin(self, device: Device) -> Run:
        return DeviceForest(self._forest, device, by_rank=self._by_rank).probabilities

    def given(self, device: Device, planes: npt.NDArray[np.float32] | None = None) -> Any:
        return device.array(self.inputs)

    def reference(self) -> npt.NDArray[Any]:
        return predict_probabilities(self._forest, self.inputs)

    def contradicts_itself(self, device: Device, result: Any) -> bool:
        labels = device.empty(self.inputs.shape[1], np.uint8)
        device_labels(device, result, values=device.array(self._class_values), out=labels)
        found = device.numpy(result)
        as_bytes = device.empty(found.shape, np.uint8)
        device_bytes(device, result, out=as_bytes)
        return not (
            np.array_equal(device.numpy(labels), predict_classes(found, self._class_values))
            and np.array_equal(device.numpy(as_bytes), probability_bytes(found))
        )

    def n_pixels(self, given: Any) -> int:
        return int(given.shape[1])
