"""Planes as the forest sees them, and those of them that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, HostDevice
from gpu_tomoclass.errors import StoppedError
from gpu_tomoclass.forest import DeviceForest, Forest, lead, predict_classes, predict_probabilities
from gpu_tomoclass.interactive.plane_features import PlaneFeatures

MOST_OVERLAY_BYTES = 2**28


@dataclass(frozen=True)
class Overlay:
    """A plane as the forest sees it.

    Attributes
    ----------
    z : int
    labels : numpy.ndarray
        (ny, nx) uint8 class values.
    uncertainty : numpy.ndarray
        (ny, nx) uint8: 0 where the forest is sure, 255 where two classes have the same probability.
    version : int
        Of the forest.
    """

    z: int
    labels: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.uint8]
    version: int


@dataclass(frozen=True)
class NumberedForest:
    """A forest that is asked on the device, if that runs kernels; ``version`` says which of a session's it is."""

    forest: Forest
    on_device: DeviceForest | None
    device: Device
    class_values: npt.NDArray[np.uint8]
    version: int

    def overlay(
        self, z: int, plane: PlaneFeatures, *, shape: tuple[int, int], mask: bool, should_stop: Callable[[], bool]
    ) -> Overlay:
        """Classify plane ``z``, band by band.

        Parameters
        ----------
        z : int
        plane : PlaneFeatures
        shape : tuple of int
            (ny, nx)
        mask : bool
            Label 0 where a voxel was not finite.
        should_stop : callable
            Asked before each band.

        Raises
        ------
        StoppedError
            If ``should_stop`` said so.
        """
        labels, uncertainty = [], []
        for band in plane.bands:
            if should_stop():
                raise StoppedError("the plane is not wanted any more")
            of_band = self._probabilities(band)
            labels.append(predict_classes(of_band, self.class_values))
            uncertainty.append(np.rint(255 * (1 - lead(of_band))).astype(np.uint8))
        found = np.concatenate(labels).reshape(shape)
        if mask and plane.filled is not None:
            found[plane.filled] = 0
        return Overlay(z, found, np.concatenate(uncertainty).reshape(shape), self.version)

    def _probabilities(self, band: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.on_device is None:
            return predict_probabilities(self.forest, band)
        on_device = band if isinstance(self.device, HostDevice) else self.device.array(band)
        return self.device.numpy(self.on_device.probabilities(on_device))


class Overlays:
    """The overlays that were made last, as many as memory allows; for one thread at a time."""

    def __init__(self, *, plane_pixels: int) -> None:
        self._most = max(4, MOST_OVERLAY_BYTES // (2 * plane_pixels))
        self._kept: dict[int, Overlay] = {}

    def get(self, z: int) -> Overlay | None:
        """That of plane ``z``, perhaps of an older forest."""
        return self._kept.get(z)

    def put(self, overlay: Overlay, *, view: int) -> None:
        """Keep one; the oldest go when there are too many, but never that of the plane in view."""
        self._kept.pop(overlay.z, None)
        self._kept[overlay.z] = overlay
        others = [z for z in self._kept if z != view]
        for z in others[: max(0, len(self._kept) - self._most)]:
            del self._kept[z]

    def of_version(self, version: int) -> list[Overlay]:
        """Those that this forest has made."""
        return [overlay for overlay in self._kept.values() if overlay.version == version]
