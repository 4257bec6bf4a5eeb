"""One plane as the features see it, with the work that several families share."""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.reference.blur import gaussian_blur


def stretch_to_bytes(image: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """The 8-bit image that ImageJ makes of a float image with display range ``low`` .. ``high``.

    ``min(255, int(max(0, v - low) * 255 / (high - low) + 0.5))`` in double precision. Where high = low, ImageJ's 0/0
    becomes 0, so a constant plane is 0 everywhere; a NaN pixel becomes 0 too.

    Parameters
    ----------
    image : ndarray
        float32, any shape.

    Returns
    -------
    ndarray
        uint8, same shape.
    """
    if not high > low:
        # (v - low) * inf: values above the range saturate, the others are 0 * inf = NaN, which Java casts to 0.
        return np.where(image > np.float64(low), np.uint8(255), np.uint8(0))
    value = image.astype(np.float64)
    value -= low
    np.maximum(value, 0.0, out=value)
    value *= 255.0 / (high - low)
    value += 0.5
    np.minimum(value, 255.0, out=value)
    np.nan_to_num(value, copy=False, nan=0.0)
    return value.astype(np.uint8)


class FeatureSource:
    """One plane, read-only, with results that several features need, computed once when first asked for.

    Not safe to share between threads: one source per plane and thread.

    Parameters
    ----------
    plane : ndarray
        (ny, nx), any integer or float dtype and byte order; seen as float32 without rescaling, as TWS does.
    display_range : (float, float), optional
        The range that is stretched to 0..255 for Bilateral and Lipschitz. None (8- and 16-bit images in TWS): the
        plane's own minimum and maximum. TWS uses the display range of the image or stack for 32-bit sources.

    Attributes
    ----------
    image : ndarray
        (ny, nx) float32, C-contiguous, read-only.

    Raises
    ------
    UsageError
        If the plane is not a 2-D image of real numbers with at least one pixel, or the display range is not finite and
        rising.
    """

    def __init__(self, plane: np.ndarray, *, display_range: tuple[float, float] | None = None) -> None:
        plane = np.asarray(plane)
        if plane.ndim != 2 or plane.size == 0:
            raise UsageError(f"features need a 2-D plane with at least one pixel, not shape {plane.shape}")
        if plane.dtype.kind not in "biuf":
            raise UsageError(f"features need real numbers, not {plane.dtype}")
        if display_range is not None:
            low, high = float(display_range[0]), float(display_range[1])
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise UsageError(f"a display range needs two finite values, low < high, not {low:g} and {high:g}")
            # ImageJ keeps the range of a float image as float32.
            display_range = float(np.float32(low)), float(np.float32(high))
        self.image = np.ascontiguousarray(plane, dtype=np.float32).view()  # the caller's array stays writeable
        self.image.flags.writeable = False
        self.display_range = display_range
        self._gaussians: dict[tuple[float, float], np.ndarray] = {}
        self._bytes_own: np.ndarray | None = None
        self._bytes_display: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.image.shape[0], self.image.shape[1]

    def gaussian(self, sigma: float, *, factor: float = 1.0) -> np.ndarray:
        """The plane after TWS's Gaussian blur of "sigma" (std 0.4 sigma), times a factor: (ny, nx) float32, read-only.

        Sigma 0 is the plane itself.
        """
        if sigma == 0:
            return self.image
        if (sigma, factor) not in self._gaussians:
            blurred = gaussian_blur(self.image, sigma, factor=factor)
            blurred.flags.writeable = False
            self._gaussians[sigma, factor] = blurred
        return self._gaussians[sigma, factor]

    def bytes_own(self) -> np.ndarray:
        """The plane stretched to 0..255 from its own minimum and maximum: (ny, nx) uint8, read-only (Entropy)."""
        if self._bytes_own is None:
            finite = self.image[np.isfinite(self.image)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
            self._bytes_own = stretch_to_bytes(self.image, low=low, high=high)
            self._bytes_own.flags.writeable = False
        return self._bytes_own

    def bytes_display(self) -> np.ndarray:
        """The plane stretched to 0..255 from the display range: (ny, nx) uint8, read-only (Bilateral, Lipschitz)."""
        if self.display_range is None:
            return self.bytes_own()
        if self._bytes_display is None:
            low, high = self.display_range
            self._bytes_display = stretch_to_bytes(self.image, low=low, high=high)
            self._bytes_display.flags.writeable = False
        return self._bytes_display


def original(source: FeatureSource) -> np.ndarray:
    """``original``: the plane itself; (1, ny, nx) float32, read-only."""
    return source.image[np.newaxis]
