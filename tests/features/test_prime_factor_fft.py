"""The Fourier transform of the Mines Java Toolkit: against NumPy's, and bit for bit against the toolkit's output."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from gpu_tomoclass.features.reference import prime_factor_fft as fft

# Lengths with every factor: 2 .. 5, 7, 8, 9, 11, 13, 16.
LENGTHS = (1, 2, 3, 4, 5, 8, 9, 16, 84, 126, 240, 315, 360, 880, 1040, 1386)
# CRC-32 of what FftComplex (signs -1 and 1), FftReal.realToComplex (-1) and complexToReal (1) of mines-jtk gave for
# ramp(n), as big-endian float32; Java 17.
OF_THE_TOOLKIT = {
    16: (149508024, 3372610302, 1366459185, 270708777),
    84: (260034932, 761727677, 3910444634, 2482515844),
    126: (964836095, 3514263398, 2816655248, 2643666525),
    240: (1677068877, 589630523, 3264366093, 3407538204),
    360: (3647204929, 1848635379, 1266428385, 402712096),
    880: (1769242099, 2194741150, 3024312038, 2206896869),
    1040: (2555665928, 987783076, 1692570159, 3349050058),
    1386: (1595379244, 2055753649, 1848845634, 709311883),
}


def ramp(n: int) -> np.ndarray:
    """2 n numbers of three decimals."""
    return (np.arange(2 * n) * 7919 % 1000 / 1000 - 0.5).astype(np.float32)


def as_complex(z: np.ndarray) -> np.ndarray:
    return z[..., 0].astype(np.float64) + 1j * z[..., 1]


@pytest.mark.parametrize("n", LENGTHS)
def test_equals_numpy(n: int) -> None:
    z = np.random.default_rng(n).normal(size=(3, n, 2)).astype(np.float32)
    for sign, expected in ((-1, np.fft.fft(as_complex(z))), (1, n * np.fft.ifft(as_complex(z)))):
        error = np.abs(as_complex(fft.transform(z, sign=sign)) - expected).max()
        assert error <= 1e-6 * np.abs(expected).max()  # float32 sums of up to 5 modules
    x = z.reshape(3, 2 * n)
    spectrum = fft.real_to_complex(x)
    np.testing.assert_allclose(as_complex(spectrum), np.fft.rfft(x), atol=1e-6 * 4 * np.sqrt(2 * n))
    np.testing.assert_allclose(fft.complex_to_real(spectrum) / (2 * n), x, atol=4e-6)


@pytest.mark.parametrize("n", list(OF_THE_TOOLKIT))
def test_equals_the_toolkit_in_every_bit(n: int) -> None:
    x = ramp(n)
    z = x.reshape(n, 2)
    spectrum = fft.real_to_complex(x)
    results = [*(fft.transform(z, sign=sign) for sign in (-1, 1)), spectrum, fft.complex_to_real(spectrum)]
    # + 0: the sign of a zero is no value.
    assert tuple(zlib.crc32((r + np.float32(0)).astype(">f4").tobytes()) for r in results) == OF_THE_TOOLKIT[n]


def test_lengths() -> None:
    assert [fft.complex_length(n) for n in (1, 7, 80, 241, 341)] == [1, 8, 80, 252, 360]
    assert [fft.real_length(n) for n in (1, 62, 452)] == [2, 72, 480]
