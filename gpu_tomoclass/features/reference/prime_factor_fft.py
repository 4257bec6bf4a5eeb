"""The single-precision Fourier transform that Trainable Weka Segmentation (TWS) convolves with, bit for bit.

TWS's Gabor filters go through ImgLib2's ``FFTConvolution``, which uses the real and complex transforms of the Mines
Java Toolkit: a self-sorting prime factor algorithm of float32, whose modules add in a certain order. Any other
transform differs in the last bits. Here the same additions are made in the same order for many lines at once.

References
----------
C. Temperton, "Implementation of a self-sorting in-place prime factor FFT algorithm", J. Comput. Phys. 58 (1985)
283-299; "A new set of minimum-add small-n rotated DFT modules", J. Comput. Phys. 75 (1988) 190-198.
"""

from __future__ import annotations

import bisect
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Parts = list[Any]  # samples that a module mixes, each (..., 2) float32: real and imaginary parts

FACTORS = (16, 13, 11, 9, 8, 7, 5, 4, 3, 2)
# The lengths that the toolkit takes for fast; the next one is used.
LENGTHS = (
    *(1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 18, 20, 24, 28, 30, 36, 40, 45, 48, 60, 72, 80, 84, 90, 105, 120, 126),
    *(144, 168, 180, 210, 240, 252, 280, 315, 360, 420, 440, 504, 560, 630, 720, 840, 880, 1008, 1040, 1260, 1320),
    *(1386, 1680, 1848, 1980, 2520, 2640, 2772, 3080, 3120, 3276, 3465, 3696, 3960, 4095, 4368, 4620, 5040, 5544),
    *(6160, 6552, 6930, 7280, 7920, 8190, 9240, 9360, 10920, 11088, 11440, 12012, 13104, 13860, 16380, 18480, 21840),
    *(24024, 27720, 32760, 34320, 36036, 40040, 45045, 48048, 55440, 60060, 65520, 72072, 80080, 90090, 102960),
    *(120120, 144144, 180180, 240240, 360360, 720720),
)


def complex_length(n: int) -> int:
    """Samples of a complex transform of at least ``n`` <= 720720."""
    return LENGTHS[bisect.bisect_left(LENGTHS, n)]


def real_length(n: int) -> int:
    """Samples of a real transform of at least ``n`` <= 1441440: an even number."""
    return 2 * complex_length((n + 1) // 2)


def transform(z: Floats, *, sign: int) -> Floats:
    """Sums over s of z[s] exp(sign 2 pi i s f / n) along the last axis but one, unscaled.

    Parameters
    ----------
    z : numpy.ndarray
        (..., n, 2) float32, real and imaginary parts; n one of :data:`LENGTHS`.
    sign : {1, -1}

    Returns
    -------
    numpy.ndarray
        A new array of that shape.
    """
    z = z.copy()
    for factor, turns, places in _steps(z.shape[-2], sign):
        parts = [z[..., places[k], :] for k in range(factor)]
        for k, mixed in enumerate(_module(factor, turns, parts)):
            z[..., places[k], :] = mixed
    return z


def real_to_complex(x: Floats) -> Floats:
    """(..., n) float32 -> (..., n / 2 + 1, 2): the transform of sign -1 along the last axis, frequencies 0 .. n / 2."""
    n = x.shape[-1]
    half = transform((np.float32(0.5) * x).reshape(*x.shape[:-1], n // 2, 2), sign=-1)
    c = np.zeros((*x.shape[:-1], n // 2 + 1, 2), dtype=np.float32)
    c[..., :-1, :] = half
    c[..., -1, 0] = np.float32(2) * (half[..., 0, 0] - half[..., 0, 1])
    c[..., 0, 0] = np.float32(2) * (half[..., 0, 0] + half[..., 0, 1])
    c[..., 0, 1] = 0
    _unravel(c, n, sign=-1, way=1)
    return c


def complex_to_real(c: Floats) -> Floats:
    """(..., n / 2 + 1, 2) float32 -> (..., n): the transform of sign 1, unscaled: n times the inverse of the above."""
    n = 2 * (c.shape[-2] - 1)
    z = c.copy()
    z[..., 0, 1] = c[..., 0, 0] - c[..., -1, 0]
    z[..., 0, 0] = c[..., 0, 0] + c[..., -1, 0]
    _unravel(z, n, sign=-1, way=-1)
    return transform(z[..., :-1, :], sign=1).reshape(*c.shape[:-2], n)


def _unravel(c: Floats, n: int, *, sign: int, way: int) -> None:
    """In place: between the transform of a real line and that of its even and odd samples as one complex line."""
    wr, wi = _twiddles(n, sign)
    j, k = np.arange(1, len(wr) + 1), n // 2 - np.arange(1, len(wr) + 1)
    low, high = c[..., j, :], c[..., k, :]
    total, difference = low + high, low - high
    tr = (wi * difference[..., 0] + way * wr * total[..., 1]).astype(np.float32)
    ti = (wi * total[..., 1] - way * wr * difference[..., 0]).astype(np.float32)
    c[..., j, 0], c[..., j, 1] = total[..., 0] + tr, ti + difference[..., 1]
    c[..., k, 0], c[..., k, 1] = total[..., 0] - tr, ti - difference[..., 1]


@lru_cache(maxsize=16)
def _twiddles(n: int, sign: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """cos and sin of sign 2 pi j / n for j = 1 .. n / 4, each from the one before."""
    theta = sign * 2.0 * math.pi / n
    half = math.sin(0.5 * theta)
    step_r, step_i = -2.0 * half * half, math.sin(theta)
    wr, wi = 1.0 + step_r, step_i
    found = []
    for _ in range(n // 4):
        found.append((wr, wi))
        wr, wi = wr + (wr * step_r - wi * step_i), wi + (wi * step_r + wr * step_i)
    both = np.array(found, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@lru_cache(maxsize=64)
def _steps(n: int, sign: int) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
    """The factors of a length, largest first, with their rotation and which samples they mix, (factor, n / factor)."""
    steps = []
    left = n
    for factor in FACTORS:
        if left % factor:
            continue
        left //= factor
        m = n // factor
        turns = next(t for t in range(1, factor + 1) if t * m % factor == 1)
        stride = turns * m
        i = np.arange(m)
        places = np.stack([(k - i) % factor * stride % n + i for k in range(factor)])
        steps.append((factor, turns if sign > 0 else factor - turns, places))
    return steps


# --- the modules: discrete transforms of few samples, rotated by `turns` ----------------------------------------------


def _module(factor: int, turns: int, z: Parts) -> Parts:
    if factor == 2:
        return [z[0] + z[1], z[0] - z[1]]
    return {4: _four, 5: _five, 8: _eight, 9: _nine, 16: _sixteen}.get(factor, _prime)(z, turns)


def _constant(value: float) -> np.float32:
    """Of nine decimals, as the toolkit has them: one, 0.748510748, is another float32 than the exact number's."""
    return np.float32(round(value, 9))


def _cosine(turns: int, n: int) -> np.float32:
    return _constant(math.cos(2.0 * math.pi * (turns % n) / n))


def _sine(turns: int, n: int) -> np.float32:
    """Of twice pi turns / n; the sine of its least equivalent, with a sign, so that equal sizes have equal bits."""
    turns %= n
    return _constant(math.sin(2.0 * math.pi * turns / n)) if 2 * turns <= n else -_sine(n - turns, n)


def _pairs(even: Parts, odd: Parts) -> Parts:
    """even[m] + i odd[m] for m = 1 .., then even[m] - i odd[m] the other way round."""
    turned = [np.stack([-o[..., 1], o[..., 0]], axis=-1) for o in odd]
    up = [e + o for e, o in zip(even, turned, strict=True)]
    down = [e - o for e, o in zip(even, turned, strict=True)]
    return [*up, *down[::-1]]


def _prime(z: Parts, turns: int) -> Parts:
    """3, 7, 11, 13."""
    n, h = len(z), len(z) // 2
    sums = [z[k] + z[n - k] for k in range(1, h + 1)]
    differences = [z[k] - z[n - k] for k in range(1, h + 1)]
    base = z[0] - np.float32(0.5) * sums[-1]
    rest = [s - sums[-1] for s in sums[:-1]]
    even, odd = [], []
    for m in range(1, h + 1):
        e = base
        for k, r in enumerate(rest, start=1):
            e = e + _cosine(turns * m * k, n) * r
        o = _sine(turns * m, n) * differences[0]
        for k, d in enumerate(differences[1:], start=2):
            o = o + _sine(turns * m * k, n) * d
        even.append(e)
        odd.append(o)
    first = z[0]
    for s in sums:
        first = first + s
    return [first, *_pairs(even, odd)]


def _four(z: Parts, turns: int) -> Parts:
    one = _sine(turns, 4)
    a, b = z[0] + z[2], z[1] + z[3]
    up, down = _pairs([z[0] - z[2]], [one * (z[1] - z[3])])
    return [a + b, up, a - b, down]


def _five(z: Parts, turns: int) -> Parts:
    root = _constant(math.sqrt(5.0) / 4.0)
    c1 = root if turns in (1, 4) else -root
    c2, c3 = _sine(turns, 5), _sine(2 * turns, 5)
    t1, t2, t3, t4 = z[1] + z[4], z[2] + z[3], z[1] - z[4], z[2] - z[3]
    t5, t6 = t1 + t2, c1 * (t1 - t2)
    t7 = z[0] - np.float32(0.25) * t5
    return [z[0] + t5, *_pairs([t7 + t6, t7 - t6], [c2 * t3 + c3 * t4, c3 * t3 - c2 * t4])]


def _eight(z: Parts, turns: int) -> Parts:
    c1, c2 = _sine(2 * turns, 8), _cosine(turns, 8)
    c3 = c1 * c2
    t1, t2, t3, t4 = z[0] + z[4], z[0] - z[4], z[1] + z[5], z[1] - z[5]
    t5, t6, t7, t8 = z[2] + z[6], c1 * (z[2] - z[6]), z[3] + z[7], z[3] - z[7]
    t9, t10, t11, t12 = t1 + t5, t3 + t7, c2 * (t4 - t8), c3 * (t4 + t8)
    even = [t2 + t11, t1 - t5, t2 - t11]
    odd = [t12 + t6, c1 * (t3 - t7), t12 - t6]
    ends = _pairs(even, odd)
    return [t9 + t10, *ends[:3], t9 - t10, *ends[3:]]


def _nine(z: Parts, turns: int) -> Parts:
    half = np.float32(0.5)
    c1, c2, c3 = _sine(3 * turns, 9), _cosine(turns, 9), _sine(turns, 9)
    c4, c5 = _cosine(2 * turns, 9), _sine(2 * turns, 9)
    c6, c7, c8, c9 = c1 * c2, c1 * c3, c1 * c4, c1 * c5
    t1 = z[3] + z[6]
    t2, t3, t4 = z[0] - half * t1, c1 * (z[3] - z[6]), z[0] + t1
    t5 = z[4] + z[7]
    t6, t7, t8 = z[1] - half * t5, z[4] - z[7], z[1] + t5
    t9 = z[2] + z[5]
    t10, t11, t12 = z[8] - half * t9, z[2] - z[5], z[8] + t9
    t13, t14, t15, t16, t17 = t8 + t12, t6 + t10, t6 - t10, t7 + t11, t7 - t11
    t18, t19 = c2 * t14 - c7 * t17, c4 * t14 + c9 * t17
    t20, t21 = c3 * t15 + c6 * t16, c5 * t15 - c8 * t16
    even = [t2 + t18, t2 + t19, t4 - half * t13, t2 - (t18 + t19)]
    odd = [t3 + t20, t21 - t3, c1 * (t8 - t12), t3 - (t20 - t21)]
    return [t4 + t13, *_pairs(even, odd)]


def _sixteen(z: Parts, turns: int) -> Parts:
    c1, c2, c3, c4 = _sine(4 * turns, 16), _cosine(turns, 16), _sine(turns, 16), _cosine(2 * turns, 16)
    c5, c6, c7 = c1 * c4, c1 * c3, c1 * c2
    t1, t2, t3, t4 = z[0] + z[8], z[4] + z[12], z[0] - z[8], c1 * (z[4] - z[12])
    t5, t6 = t1 + t2, t1 - t2
    t7, t8, t9, t10 = z[1] + z[9], z[5] + z[13], z[1] - z[9], z[5] - z[13]
    t11, t12 = t7 + t8, t7 - t8
    t13, t14, t15, t16 = z[2] + z[10], z[6] + z[14], z[2] - z[10], z[6] - z[14]
    t17, t18, t19, t20 = t13 + t14, c4 * (t15 - t16), c5 * (t15 + t16), c1 * (t13 - t14)
    t21, t22, t23, t24 = z[3] + z[11], z[7] + z[15], z[3] - z[11], z[7] - z[15]
    t25, t26 = t21 + t22, t21 - t22
    t27, t28, t29, t30 = t9 + t24, t10 + t23, t9 - t24, t10 - t23
    t31, t32, t33, t35 = t5 + t17, t11 + t25, t3 + t18, t3 - t18
    t34, t36 = c2 * t29 - c6 * t30, c7 * t27 - c3 * t28
    t37, t38, t39 = t4 + t19, c3 * t27 + c7 * t28, t4 - t19
    t40, t41, t42 = c6 * t29 + c2 * t30, c4 * (t12 - t26), c5 * (t12 + t26)
    even = [t33 + t34, t6 + t41, t35 + t40, t5 - t17, t35 - t40, t6 - t41, t33 - t34]
    odd = [t38 + t37, t42 + t20, t36 - t39, c1 * (t11 - t25), t36 + t39, t42 - t20, t38 - t37]
    ends = _pairs(even, odd)
    return [t31 + t32, *ends[:7], t31 - t32, *ends[7:]]
