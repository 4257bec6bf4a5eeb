"""Anisotropic diffusion against a scalar version of the plugin's arithmetic, and its known behaviour."""

import math

import numpy as np
import pytest

from gpu_tomoclass.device import Workspace
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.features.accelerated import diffusion
from gpu_tomoclass.features.accelerated.source import DeviceSource
from gpu_tomoclass.features.reference.diffusion import anisotropic_diffusion, truncated
from gpu_tomoclass.features.reference.source import FeatureSource

F = np.float32
C1, C2 = F(0.25 * (2 - math.sqrt(2))), F(0.5 * (math.sqrt(2) - 1))


def tensor_at(at, x, y, a1, edge_range):
    diagonal = C1 * (at(x + 1, y + 1) - at(x - 1, y - 1))
    anti = C1 * (at(x - 1, y + 1) - at(x + 1, y - 1))
    gx = diagonal - anti - C2 * at(x - 1, y) + C2 * at(x + 1, y)
    gy = diagonal + anti - C2 * at(x, y - 1) + C2 * at(x, y + 1)
    a, b, c = float(gx * gx), float(gx * gy), float(gy * gy)
    e = a + c
    f = math.sqrt(e * e - 4 * (a * c - b * b))
    l1, l2 = 0.5 * (e - f), 0.5 * (e + f)
    if e > 0:
        if l1 != 0:
            l2 = (a * c - b * b) / l1
    elif l2 != 0:
        l1 = (a * c - b * b) / l2
    base = float(F(1) + F(l2 / edge_range) + F(l1 / edge_range))
    f1, f2 = F(base ** -float(a1)), F(base ** -float(F(0.9)))
    if abs(b) > abs(a - l1):
        u, v = 1.0, (l1 - a) / b
    elif a - l1 != 0:
        u, v = -b / (a - l1), 1.0
    else:
        u, v = 1.0, 0.0
    n = math.sqrt(u * u + v * v)
    u, v = F(u / n), F(v / n)
    return f1 * (u * u) + f2 * (v * v), (f1 - f2) * (u * v), f1 * (v * v) + f2 * (u * u)


def diffused(plane, a1, smoothings, edge_threshold):
    ny, nx = plane.shape
    image = [[F(int(v)) for v in row] for row in plane]
    values = [float(v) for row in image for v in row]
    low, high = F(min(values)), F(max(values))
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    edge_range, step_range = (edge_threshold * deviation / 256) ** 2, 6 * deviation / 256

    def at(x, y):
        return image[min(max(y, 0), ny - 1)][min(max(x, 0), nx - 1)]

    pixels = [(y, x) for y in range(ny) for x in range(nx)]
    for _ in range(20):
        tensor = {(y, x): tensor_at(at, x, y, a1, edge_range) for y, x in pixels}
        for _ in range(smoothings):
            speed = {}
            for y, x in pixels:
                ixx = at(x + 1, y) + at(x - 1, y) - F(2) * at(x, y)
                iyy = at(x, y + 1) + at(x, y - 1) - F(2) * at(x, y)
                ixy = F(0.5) * (at(x - 1, y - 1) + at(x + 1, y + 1) - at(x - 1, y + 1) - at(x + 1, y - 1))
                xx, xy, yy = tensor[y, x]
                speed[y, x] = xx * ixx + xy * ixy + yy * iyy
            step = 20.0 / max(abs(float(s)) for s in speed.values()) * step_range
            for y, x in pixels:
                moved = F(float(image[y][x]) + float(speed[y, x]) * step)
                image[y][x] = min(max(moved, low), high)
    return np.array([[int(v) for v in row] for row in image], dtype=np.float32)


@pytest.mark.parametrize(
    ("shape", "smoothings", "edge_threshold"), [((7, 6), 1, 1.0), ((5, 8), 3, 1.0), ((6, 6), 2, 4.0), ((1, 9), 2, 1.0)]
)
def test_equals_the_scalar_definition(shape, smoothings, edge_threshold):
    plane = np.random.default_rng(3).normal(900, 400, shape).astype(np.float32)
    result = anisotropic_diffusion(FeatureSource(plane), smoothings=smoothings, edge_threshold=edge_threshold)
    assert result.dtype == np.float32
    for channel, a1 in zip(result, (F(0.1), F(0.1) + F(0.25)), strict=True):
        np.testing.assert_array_equal(channel, diffused(plane, a1, smoothings, edge_threshold))


def test_smooths_noise_and_keeps_the_step():
    clean = np.where(np.arange(40) < 20, 1000.0, 3000.0) * np.ones((30, 1))
    noisy = clean + np.random.default_rng(0).normal(0, 100, clean.shape)
    for channel in anisotropic_diffusion(FeatureSource(noisy), smoothings=4, edge_threshold=1.0):
        assert channel[:, 3:17].std() < 0.5 * noisy[:, 3:17].std()
        assert channel[:, 20:].mean() - channel[:, :20].mean() > 1900


@pytest.mark.parametrize("plane", [np.full((5, 6), 1000.0), np.random.default_rng(1).random((9, 9)), np.ones((1, 1))])
def test_constant_planes_and_fractions_give_zero(plane):
    # TWS truncates to whole numbers first, so a plane of values in 0..1 is constant to it; and 0/0 is cast to 0.
    assert not anisotropic_diffusion(FeatureSource(plane), smoothings=2, edge_threshold=1.0).any()


def test_truncation_is_javas_cast():
    values = np.array([1.9, -1.9, np.nan, np.inf, -np.inf, 3e9], dtype=np.float32)
    np.testing.assert_array_equal(truncated(values), np.array([1, -1, 0, 2**31, -(2**31), 2**31], dtype=np.float32))


def test_stays_within_the_range_of_the_plane():
    plane = np.random.default_rng(5).integers(0, 65536, (20, 15)).astype(np.uint16)
    result = anisotropic_diffusion(FeatureSource(plane), smoothings=8, edge_threshold=1.0)
    assert plane.min() <= result.min()
    assert result.max() <= plane.max()
    np.testing.assert_array_equal(result, np.trunc(result))


def starts(random: np.random.Generator) -> dict[str, np.ndarray]:
    small = random.integers(0, 9, (70, 70))
    return {
        "16 bits": random.integers(0, 65536, (67, 131)),
        "middles": random.integers(0, 2, (64, 64)) * 3,  # mean and squares have few digits
        "rising": np.sort(random.integers(0, 4096, (8, 1024)), axis=1)[:, ::-1],
        "one at the end": np.where(np.arange(4900).reshape(70, 70) == 0, 65535, small),
        "same at first": np.where(np.arange(4900).reshape(70, 70) % 70 < 35, small, 4),
        "constant": np.full((60, 50), 7),
        "one pixel": np.array([[-3]]),
    }


@pytest.mark.parametrize("kind", starts(np.random.default_rng(5)))
def test_squares_are_added_as_one_by_one(kind: str) -> None:
    """Threads that add whole last places give each bit of a sum of doubles in the definition's order."""
    plane = starts(np.random.default_rng(5))[kind].astype(np.float32)
    limits = np.empty((1, 3))
    source = DeviceSource(plane[np.newaxis], Workspace(NativeDevice(threads=1, gpu_plan=True)))
    diffusion._start(source, limits)
    values = plane.astype(np.float64)[::-1, ::-1].T.ravel()  # the last column first, each upwards
    squares = np.square(values - values.sum() / values.size)
    total = np.cumsum(squares)[-1]  # one by one
    assert limits.tolist() == [[plane.min(), plane.max(), np.sqrt(total / values.size)]]
