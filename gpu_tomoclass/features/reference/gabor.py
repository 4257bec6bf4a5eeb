"""Gabor filters: the response to stripes of a given width and direction, largest and smallest over 10 directions.

TWS convolves by single-precision FFT, so its own values carry errors of up to 1e-5 of a channel's standard deviation;
this definition is in double precision and agrees within that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import fft

from gpu_tomoclass.features.reference.source import FeatureSource

N_ANGLES = 10
FLAT = 1e-6
"""A response that varies by less than this part of the largest possible response is taken as constant."""


class GaborBank(NamedTuple):
    """Ten kernels that differ in direction only.

    ``sigma`` in pixels across the stripes, ``sigma / gamma`` along them; ``phase`` 0 for a cosine, 2 for a cosine moved
    by pi/2; ``frequency`` in cycles per kernel width.
    """

    sigma: float
    gamma: float
    phase: int
    frequency: float

    @property
    def size(self) -> int:
        """Width of the square kernel in pixels."""
        return 6 * max(1, int(max(self.sigma, self.sigma / self.gamma))) + 1


BANKS = tuple(
    [GaborBank(1.0, gamma, phase, 2.0) for phase in (0, 2) for gamma in (1.0, 0.5, 0.25)]
    + [
        GaborBank(sigma, gamma, phase, frequency)
        for phase in (0, 2)
        for sigma in (2.0, 4.0)
        for gamma in (1.0, 2.0)
        for frequency in (2.0, 3.0)
    ]
)
"""The 22 banks in the order of TWS's channels."""


def gabor(source: FeatureSource) -> np.ndarray:
    """Largest and smallest Gabor response over 10 directions, for 22 kinds of stripes.

    Each response is first brought to mean 0 and standard deviation 1 over the plane, so values depend on the whole
    plane. The plane is mirrored at its edges without repeating the edge pixel (periodically, where the kernel is larger
    than the plane). A response that does not vary, as that of a constant plane, is 0; TWS gives garbage there.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).

    Returns
    -------
    ndarray
        (44, ny, nx) float32: maximum, then minimum, for each of :data:`BANKS`.

    References
    ----------
    N. Petkov and P. Kruizinga, "Computational models of visual neurons specialised in the detection of periodic and
    aperiodic oriented visual stimuli: bar and grating cells", Biological Cybernetics 76 (1997) 83-96.
    """
    ny, nx = source.shape
    # A constant added to the plane drops out in the normalisation; without it, rounding errors are smallest.
    plane = source.image - source.image.mean(dtype=np.float64)
    largest = float(np.abs(plane).max())
    result = np.empty((len(BANKS), 2, ny, nx), dtype=np.float32)
    result[:, 0], result[:, 1] = -np.inf, np.inf
    spectra: dict[int, np.ndarray] = {}
    for bank, (highest, lowest) in zip(BANKS, result, strict=True):
        margin = bank.size - 1
        shape = fft.next_fast_len(ny + margin, real=True), fft.next_fast_len(nx + margin, real=True)
        if bank.size not in spectra:
            spectra[bank.size] = fft.rfft2(np.pad(plane, margin // 2, mode="reflect"), shape)
        for angle in range(N_ANGLES):
            taps = kernel(bank, angle)
            filtered = fft.irfft2(spectra[bank.size] * fft.rfft2(taps, shape), shape)
            response = _normalised(filtered[margin : margin + ny, margin : margin + nx], largest * np.abs(taps).sum())
            np.maximum(highest, response, out=highest)
            np.minimum(lowest, response, out=lowest)
    return result.reshape(2 * len(BANKS), ny, nx)


def kernel(bank: GaborBank, angle: int) -> np.ndarray:
    """Kernel of direction pi * ``angle`` / 10, for a convolution: (size, size) float64, rounded to float32 as in TWS.

    exp(-0.5 (u^2 / sx^2 + v^2 / sy^2)) / (2 pi sx sy) * cos(2 pi frequency u / size + psi) with sx = sigma,
    sy = sigma / gamma, psi = 0 or pi/2; u is the distance across the stripes and v along them.
    """
    reach = bank.size // 2
    sx, sy = bank.sigma, bank.sigma / bank.gamma
    theta, psi = math.pi / N_ANGLES * angle, 0.5 * math.pi if bank.phase == 2 else 0.0
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    u, v = x * math.cos(theta) + y * math.sin(theta), y * math.cos(theta) - x * math.sin(theta)
    bell = np.exp(-0.5 * (u * u / (sx * sx) + v * v / (sy * sy))) / (2.0 * math.pi * sx * sy)
    wave = np.cos(2.0 * math.pi * bank.frequency * u / bank.size + psi)
    return (bell * wave).astype(np.float32).astype(np.float64)


def _normalised(response: np.ndarray, scale: float) -> np.ndarray:
    """(response - mean) / sample standard deviation, float32; 0 if the deviation is but rounding error of ``scale``."""
    deviation = response.std(ddof=1) if response.size > 1 else 0.0
    if deviation <= FLAT * scale:
        return np.zeros(response.shape, dtype=np.float32)
    return ((response - response.mean()) / deviation).astype(np.float32)
