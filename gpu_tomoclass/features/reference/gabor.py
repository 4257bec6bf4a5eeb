"""Gabor filters: the response to stripes of a given width and direction, largest and smallest over 10 directions.

TWS convolves by single-precision FFT, so its own values carry errors of up to 1e-5 of a channel's standard deviation;
this definition is in double precision and agrees within that. ``exact`` repeats TWS's transform and its errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import fft

from gpu_tomoclass.features.reference import prime_factor_fft
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


def gabor(source: FeatureSource, *, exact: bool = False, banks: Sequence[int] | None = None) -> np.ndarray:
    """Largest and smallest Gabor response over 10 directions, for 22 kinds of stripes.

    Each response is first brought to mean 0 and standard deviation 1 over the plane, so values depend on the whole
    plane. The plane is mirrored at its edges without repeating the edge pixel (periodically, where the kernel is larger
    than the plane). A response that does not vary, as that of a constant plane, is 0; TWS gives garbage there.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).
    exact : bool
        Every bit as TWS computes it, its rounding errors and its garbage on constant planes included; ten times slower.
    banks : sequence of int, optional
        Places in :data:`BANKS`; default, and with ``exact``, all.

    Returns
    -------
    ndarray
        (44, ny, nx) float32: maximum, then minimum, for each of :data:`BANKS`, or of those wanted.

    References
    ----------
    N. Petkov and P. Kruizinga, "Computational models of visual neurons specialised in the detection of periodic and
    aperiodic oriented visual stimuli: bar and grating cells", Biological Cybernetics 76 (1997) 83-96.
    """
    if exact:
        return _by_tws(source.image)
    ny, nx = source.shape
    # A constant added to the plane drops out in the normalisation; without it, rounding errors are smallest.
    plane = source.image - source.image.mean(dtype=np.float64)
    largest = float(np.abs(plane).max())
    wanted = BANKS if banks is None else [BANKS[i] for i in banks]
    result = np.empty((len(wanted), 2, ny, nx), dtype=np.float32)
    result[:, 0], result[:, 1] = -np.inf, np.inf
    spectra: dict[int, np.ndarray] = {}
    for bank, (highest, lowest) in zip(wanted, result, strict=True):
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
    return result.reshape(2 * len(wanted), ny, nx)


@cache
def kernel(bank: GaborBank, angle: int) -> np.ndarray:
    """Kernel of direction pi * ``angle`` / 10, for a convolution: (size, size) float64, rounded to float32 as in TWS;
    read-only.

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
    taps = (bell * wave).astype(np.float32).astype(np.float64)
    taps.setflags(write=False)  # it is kept
    return taps


def _normalised(response: np.ndarray, scale: float) -> np.ndarray:
    """(response - mean) / sample standard deviation, float32; 0 if the deviation is but rounding error of ``scale``."""
    deviation = response.std(ddof=1) if response.size > 1 else 0.0
    if deviation <= FLAT * scale:
        return np.zeros(response.shape, dtype=np.float32)
    return ((response - response.mean()) / deviation).astype(np.float32)


def _by_tws(image: np.ndarray) -> np.ndarray:
    """As TWS 4.0.0 does it, in the precision and order of ImgLib2 (``FFTConvolution``) and ImageJ 1.54."""
    ny, nx = image.shape
    result = np.empty((len(BANKS), 2, ny, nx), dtype=np.float32)
    result[:, 0], result[:, 1] = -np.finfo(np.float32).max, np.finfo(np.float32).max
    spectra: dict[int, np.ndarray] = {}
    for bank, (highest, lowest) in zip(BANKS, result, strict=True):
        shape = (
            prime_factor_fft.complex_length(ny + bank.size - 1),
            prime_factor_fft.real_length(nx + bank.size - 1),
        )
        before = [(long - n) // 2 for long, n in zip(shape, (ny, nx), strict=True)]
        if bank.size not in spectra:
            after = [long - n - b for long, n, b in zip(shape, (ny, nx), before, strict=True)]
            spectra[bank.size] = _spectrum(np.pad(image, list(zip(before, after, strict=True)), mode="reflect"))
        for angle in range(N_ANGLES):
            product = _product(spectra[bank.size], _kernel_spectrum(kernel(bank, angle), shape))
            along_y = prime_factor_fft.transform(np.swapaxes(product, 0, 1), sign=1) / np.float32(shape[0])
            rows = np.swapaxes(along_y, 0, 1)[before[0] : before[0] + ny]
            lines = prime_factor_fft.complex_to_real(rows)[:, before[1] : before[1] + nx] / np.float32(shape[1])
            response = _standardised(lines)
            np.fmax(highest, response, out=highest)
            np.fmin(lowest, response, out=lowest)
    return result.reshape(2 * len(BANKS), ny, nx)


def _spectrum(padded: np.ndarray) -> np.ndarray:
    """(ny, nx) float32 -> (ny, nx / 2 + 1, 2), x first."""
    rows = prime_factor_fft.real_to_complex(padded)
    return np.swapaxes(prime_factor_fft.transform(np.swapaxes(rows, 0, 1), sign=-1), 0, 1)


def _kernel_spectrum(taps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Of a kernel whose centre is at (0, 0); most of its lines are 0, and so are their transforms."""
    ny, nx = shape
    at = np.arange(-(len(taps) // 2), len(taps) // 2 + 1)
    lines = np.zeros((len(taps), nx), dtype=np.float32)
    lines[:, at % nx] = taps
    rows = np.zeros((ny, nx // 2 + 1, 2), dtype=np.float32)
    rows[at % ny] = prime_factor_fft.real_to_complex(lines)
    return np.swapaxes(prime_factor_fft.transform(np.swapaxes(rows, 0, 1), sign=-1), 0, 1)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of complex numbers, (..., 2) float32."""
    result = np.empty_like(a)
    result[..., 0] = a[..., 0] * b[..., 0] - a[..., 1] * b[..., 1]
    result[..., 1] = a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]
    return result


def _standardised(response: np.ndarray) -> np.ndarray:
    """Mean 0 and sample standard deviation 1, by ImageJ's sums of doubles pixel after pixel, applied in float32."""
    values = response.ravel().astype(np.float64)
    n = float(values.size)
    total, squares = np.cumsum(values)[-1], np.cumsum(values * values)[-1]
    variance = (n * squares - total * total) / n
    deviation = np.sqrt(variance / (n - 1.0)) if variance > 0 else np.float64(0)
    with np.errstate(all="ignore"):
        scaled: np.ndarray = (response + np.float32(-(total / n))) * np.float32(np.float64(1) / deviation)
    return scaled
