"""The values of each channel that viewers show as black and as white."""

from __future__ import annotations

import threading

import numpy as np


class ChannelRanges:
    """Least and largest finite value of each of ``n_channels``, plane by plane; 0 channels: nothing is looked at."""

    def __init__(self, n_channels: int) -> None:
        self._low, self._high = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
        self._lock = threading.Lock()

    def add(self, planes: np.ndarray) -> None:
        """One plane of all channels: (n_channels, ny, nx)."""
        if not self._low.size:
            return
        axes = (1, 2)
        low, high = planes.min(axis=axes), planes.max(axis=axes)
        if planes.dtype.kind == "f" and not (np.isfinite(low) & np.isfinite(high)).all():
            finite = np.isfinite(planes)
            low = planes.min(axis=axes, where=finite, initial=np.inf)
            high = planes.max(axis=axes, where=finite, initial=-np.inf)
        self.dtype = planes.dtype
        with self._lock:
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def shown(self) -> list[tuple[float, float]] | None:
        """Black and white of each channel; None without channels.

        Shares (floats within 0 and 1) are shown from 0 to 1 and bytes from 0 to 255, so that channels can be compared;
        whatever else as far as its values reach. A channel of one value is shown black.
        """
        if not self._low.size:
            return None
        low, high = self._low, self._high
        whole = {"f": 1.0, "u": 255.0}.get(self.dtype.kind, 0.0)
        if (self.dtype.kind == "f" or self.dtype == np.uint8) and low.min() >= 0 and high.max() <= whole:
            return [(0.0, whole)] * low.size
        return [(float(a), float(b)) if a < b else _around(a) for a, b in zip(low, high, strict=True)]


def _around(value: float) -> tuple[float, float]:
    """A range whose lower end is the only value of a channel; of a channel without a finite value 0 to 1."""
    return (float(value), float(value) + max(1.0, abs(float(value)))) if np.isfinite(value) else (0.0, 1.0)
