"""Anisotropic diffusion: Tschumperlé and Deriche's smoothing along edges, with the integer truncation of TWS's plugin.

Follows ``Anisotropic_Diffusion_2D`` 2.0.1 operation by operation, so results agree in every bit. Float32 unless said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

A1 = (np.float32(0.1), np.float32(0.1) + np.float32(0.25))
"""Exponents that limit diffusion along edges, one channel each."""
A2 = np.float32(0.9)
"""Exponent that limits diffusion across edges."""
N_ITERATIONS = 20
TIME_STEP = 20.0
C1 = np.float32(0.25 * (2.0 - math.sqrt(2.0)))
C2 = np.float32(0.5 * (math.sqrt(2.0) - 1.0))
INT_MIN, INT_MAX = -(2**31), 2**31 - 1


def anisotropic_diffusion(
    source: FeatureSource, *, smoothings: int, edge_threshold: float, jobs: Sequence[int] = (0, 1)
) -> np.ndarray:
    """Diffuse a plane along its edges: 20 iterations of a structure tensor and ``smoothings`` steps.

    Values are truncated to integers before and after, so a plane with values in 0..1 gives 0 everywhere. A constant
    plane gives 0 too (0/0, which Java casts to 0). Edges repeat the edge pixel. See ``docs/features``.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).
    smoothings : int
        Smoothing steps per iteration, at least 1; TWS uses sigma rounded down.
    edge_threshold : float
        Height of an edge worth keeping, in 1/256 of the plane's standard deviation; TWS uses the membrane thickness.
    jobs : sequence of int
        Which of the two channels are wanted.

    Returns
    -------
    ndarray
        (2, ny, nx) float32 holding integers: a1 = 0.1, then a1 = 0.35.

    References
    ----------
    D. Tschumperlé and R. Deriche, "Vector-valued image regularization with PDEs", IEEE TPAMI 27 (2005) 506-517.
    """
    start = truncated(source.image)
    return np.stack([_diffuse(start, A1[job], smoothings, edge_threshold) for job in jobs])


def truncated(image: np.ndarray) -> np.ndarray:
    """float32 values cut to int as Java casts them: towards zero, within 32 bits, NaN -> 0; float32 again."""
    whole = np.trunc(np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=INT_MAX, neginf=INT_MIN))
    return np.clip(whole, INT_MIN, INT_MAX).astype(np.float32)


def _diffuse(start: np.ndarray, a1: np.float32, smoothings: int, edge_threshold: float) -> np.ndarray:
    """One channel: (ny, nx) float32 holding integers -> the same."""
    low, high = start.min(), start.max()
    deviation = _population_deviation(start)
    if deviation == 0.0:
        return np.zeros_like(start)
    edge_range = (edge_threshold * deviation / 256.0) ** 2
    step_range = 6.0 * deviation / 256.0

    padded = np.pad(start, 1, mode="edge")
    image = padded[1:-1, 1:-1]
    velocity = _Velocity(start.shape)
    moved = np.empty(start.shape, dtype=np.float64)
    for _ in range(N_ITERATIONS):
        tensor = _diffusion_tensor(padded, a1, edge_range)
        for _ in range(smoothings):
            speed = velocity(padded, tensor)
            fastest = max(abs(float(speed.max())), abs(float(speed.min())))
            with np.errstate(divide="ignore", invalid="ignore"):
                # Where nothing moves at all, Java's 0 * infinity = NaN ends as 0 everywhere.
                step = np.float64(TIME_STEP) / fastest * step_range
                np.multiply(speed, step, out=moved)
                moved += image
            image[...] = moved
            np.clip(image, low, high, out=image)
            _repeat_edges(padded)
    return truncated(image)


def _population_deviation(values: np.ndarray) -> float:
    """Standard deviation (divided by n) in double, summed one by one from the last column to the first."""
    backwards = values.T[::-1, ::-1].ravel().astype(np.float64)
    backwards -= backwards.sum() / backwards.size
    backwards *= backwards
    return math.sqrt(float(np.add.accumulate(backwards)[-1]) / backwards.size)


def _repeat_edges(padded: np.ndarray) -> None:
    padded[0], padded[-1] = padded[1], padded[-2]
    padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]


def _diffusion_tensor(p: np.ndarray, a1: np.float32, edge_range: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xx, xy, yy of the diffusion tensor of a plane padded by one pixel; float32."""
    diagonal = C1 * (p[2:, 2:] - p[:-2, :-2])
    anti = C1 * (p[2:, :-2] - p[:-2, 2:])
    gx = diagonal - anti - C2 * p[1:-1, :-2] + C2 * p[1:-1, 2:]
    gy = diagonal + anti - C2 * p[:-2, 1:-1] + C2 * p[2:, 1:-1]

    # Structure tensor [[a, b], [b, c]] of float32 products; its eigenvalues in double. As the tensor is not smoothed,
    # its determinant is 0 but for rounding, and the divisions below are what the plugin makes of that rounding.
    a, b, c = ((first * second).astype(np.float64) for first, second in ((gx, gx), (gx, gy), (gy, gy)))
    trace, determinant = a + c, a * c - b * b
    root = np.sqrt(trace * trace - 4.0 * determinant)
    small, large = 0.5 * (trace - root), 0.5 * (trace + root)
    rising = trace > 0
    np.divide(determinant, small, out=large, where=rising & (small != 0))
    np.divide(determinant, large, out=small, where=~rising & (large != 0))

    base = np.float32(1.0) + (large / edge_range).astype(np.float32) + (small / edge_range).astype(np.float32)
    along = np.power(base.astype(np.float64), -float(a1)).astype(np.float32)
    across = np.power(base.astype(np.float64), -float(A2)).astype(np.float32)

    # Eigenvector (u, v) of the small eigenvalue, along the edge: (1, (small - a) / b) or (-b / (a - small), 1).
    rest = a - small
    steep = np.abs(b) > np.abs(rest)
    level = ~steep & (rest != 0)
    u, v = np.ones_like(a), np.where(level, 1.0, 0.0)
    np.divide(-b, rest, out=u, where=level)
    np.divide(-rest, b, out=v, where=steep)
    length = np.sqrt(u * u + v * v)
    u32, v32 = (u / length).astype(np.float32), (v / length).astype(np.float32)
    uu, uv, vv = u32 * u32, u32 * v32, v32 * v32
    return along * uu + across * vv, (along - across) * uv, along * vv + across * uu


class _Velocity:
    """Trace of (tensor x Hessian): how fast each pixel changes. Owns its buffers, as it runs hundreds of times."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._total, self._part, self._twice = (np.empty(shape, dtype=np.float32) for _ in range(3))

    def __call__(self, p: np.ndarray, tensor: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """(ny, nx) float32, valid until the next call; ``p`` is the plane padded by one pixel."""
        total, part, twice = self._total, self._part, self._twice
        xx, xy, yy = tensor
        np.multiply(p[1:-1, 1:-1], np.float32(2.0), out=twice)
        np.add(p[1:-1, 2:], p[1:-1, :-2], out=total)
        total -= twice
        total *= xx
        np.add(p[:-2, :-2], p[2:, 2:], out=part)
        part -= p[2:, :-2]
        part -= p[:-2, 2:]
        part *= np.float32(0.5)
        part *= xy
        total += part
        np.add(p[2:, 1:-1], p[:-2, 1:-1], out=part)
        part -= twice
        part *= yy
        total += part
        return total
