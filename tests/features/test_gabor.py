"""Gabor filters against a direct convolution, and what normalisation implies."""

import math

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.device.dry import DryDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.reference import gabor as gabor_module
from gpu_tomoclass.features.reference.gabor import BANKS, gabor, kernel
from gpu_tomoclass.features.reference.source import FeatureSource

# Both sides are in double up to the last rounding to float32, whose unit is 6e-8 of values that reach about 10.
TOLERANCE = 2e-6


def taps_of(sigma, gamma, phase, frequency, angle):
    sx, sy = sigma, sigma / gamma
    size = 6 * max(1, int(max(sx, sy))) + 1
    psi, theta = {0: 0.0, 2: math.pi / 2}[phase], angle * math.pi / 10
    taps = np.empty((size, size), dtype=np.float32)
    for row in range(size):
        for column in range(size):
            x, y = column - size // 2, row - size // 2
            u, v = x * math.cos(theta) + y * math.sin(theta), y * math.cos(theta) - x * math.sin(theta)
            bell = math.exp(-0.5 * (u * u / sx**2 + v * v / sy**2)) / (2 * math.pi * sx * sy)
            taps[row, column] = bell * math.cos(2 * math.pi * frequency * u / size + psi)
    return taps


def directly(plane):
    channels = []
    for bank in BANKS:
        responses = []
        for angle in range(10):
            response = ndimage.convolve(plane.astype(float), taps_of(*bank, angle).astype(float), mode="mirror")
            deviation = response.std(ddof=1)
            # An odd kernel across two rows that are mirrored sees nothing: 0 / 0 counts as 0.
            responses.append((response - response.mean()) / deviation if deviation > 1e-9 else response * 0)
        channels += [np.max(responses, axis=0), np.min(responses, axis=0)]
    return np.stack(channels)


@pytest.mark.parametrize("shape", [(33, 40), (9, 7), (2, 5)])  # kernels reach 25 pixels: the last two are smaller
def test_equals_direct_convolution(shape):
    plane = np.random.default_rng(1).integers(20000, 30000, shape).astype(np.uint16)
    result = gabor(FeatureSource(plane))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, directly(plane), atol=TOLERANCE)


def test_impulse_response_is_the_kernel():
    plane = np.zeros((61, 61))
    plane[30, 30] = 1.0
    result = gabor(FeatureSource(plane))
    for index, bank in enumerate(BANKS):
        reach = bank.size // 2
        responses = np.zeros((10, 61, 61))
        responses[:, 30 - reach : 31 + reach, 30 - reach : 31 + reach] = [taps_of(*bank, a) for a in range(10)]
        responses -= responses.mean(axis=(1, 2), keepdims=True)
        responses /= responses.std(axis=(1, 2), ddof=1, keepdims=True)
        np.testing.assert_allclose(result[2 * index], responses.max(axis=0), atol=2e-5)  # values reach 60
        np.testing.assert_allclose(result[2 * index + 1], responses.min(axis=0), atol=2e-5)


def test_banks_are_in_the_order_of_weka():
    labels = """
        1.0_1.0_0_2.0 1.0_0.5_0_2.0 1.0_0.25_0_2.0 1.0_1.0_2_2.0 1.0_0.5_2_2.0 1.0_0.25_2_2.0
        2.0_1.0_0_2.0 2.0_1.0_0_3.0 2.0_2.0_0_2.0 2.0_2.0_0_3.0 4.0_1.0_0_2.0 4.0_1.0_0_3.0 4.0_2.0_0_2.0 4.0_2.0_0_3.0
        2.0_1.0_2_2.0 2.0_1.0_2_3.0 2.0_2.0_2_2.0 2.0_2.0_2_3.0 4.0_1.0_2_2.0 4.0_1.0_2_3.0 4.0_2.0_2_2.0 4.0_2.0_2_3.0
    """
    assert [f"{b.sigma}_{b.gamma}_{b.phase}_{b.frequency}" for b in BANKS] == labels.split()
    assert [b.size for b in BANKS[:3]] == [7, 13, 25]
    assert {b.size for b in BANKS if b.sigma == 2.0} == {13}
    assert {b.size for b in BANKS if b.sigma == 4.0} == {25}


@pytest.mark.parametrize("value", [0.0, 1000.0, 65535.0, 0.1])
@pytest.mark.parametrize("shape", [(40, 31), (1, 1), (1, 9)])
def test_constant_plane_is_zero(value, shape):
    assert not gabor(FeatureSource(np.full(shape, value))).any()


def test_line_of_pixels_is_finite_and_bounded():
    plane = np.random.default_rng(3).normal(size=(1, 50))
    for result in (gabor(FeatureSource(plane)), gabor(FeatureSource(plane.T))):
        # No value of n samples is more than (n - 1) / sqrt(n) sample deviations from the mean.
        assert np.abs(result).max() <= 49 / math.sqrt(50) + 1e-5
    # Odd kernels see nothing across a line that the border mirrors to a constant: that direction must not be noise.
    odd_along_x = kernel(BANKS[3], 0)
    assert np.abs(odd_along_x.sum(axis=1)).max() < 1e-8
    assert (gabor(FeatureSource(plane.T))[6] >= 0).all()


def test_brightness_and_contrast_drop_out():
    plane = np.random.default_rng(2).normal(size=(30, 30)).astype(np.float32)
    # Powers of two: the planes themselves are changed without rounding.
    np.testing.assert_allclose(gabor(FeatureSource(plane * 1024)), gabor(FeatureSource(plane)), atol=TOLERANCE)
    coarse = np.round(plane * 64) / 64
    np.testing.assert_allclose(gabor(FeatureSource(coarse + 4096)), gabor(FeatureSource(coarse)), atol=TOLERANCE)


def test_stripes_answer_to_their_own_width():
    size = 13
    stripes = np.cos(2 * np.pi * 2.0 / size * np.arange(96)) * np.ones((96, 1))
    response = gabor(FeatureSource(stripes + np.random.default_rng(0).normal(0, 0.3, (96, 96))))
    amplitude = {bank: response[2 * i].std() for i, bank in enumerate(BANKS)}
    assert amplitude[BANKS[6]] > amplitude[BANKS[7]]  # 2 rather than 3 cycles per 13 pixels


def test_exact_gabor_comes_from_the_reference_on_every_device(monkeypatch):
    """Beside families with kernels, and not at all where a device only plans."""
    bank = FeatureBank.create(["gabor", "mean"], sigma_max=2, gabor="exact")
    planes = np.random.default_rng(3).normal(size=(2, 13, 17)).astype(np.float32)
    device = NativeDevice(threads=1)
    computed = device.numpy(FeatureEngine(device, bank.blocks).compute(planes))
    for z, plane in enumerate(planes):
        np.testing.assert_array_equal(computed[:, z], bank.compute(plane))
    monkeypatch.setattr(gabor_module, "_by_tws", None)
    assert FeatureEngine(DryDevice("native"), bank.blocks).compute(planes).shape == (bank.n_channels, 2, 13, 17)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (9, 3)])
def test_exact_gabor_of_small_planes_is_gabor(shape):
    """Mirrored again and again, as by the definition; where nothing varies, TWS gives the ends of float32."""
    plane = np.random.default_rng(5).integers(0, 4000, shape).astype(np.uint16)
    exact = gabor(FeatureSource(plane), exact=True)
    assert np.isfinite(exact).all()
    if min(shape) > 1:
        np.testing.assert_allclose(exact, gabor(FeatureSource(plane)), atol=2e-3)  # see accelerated/gabor.py
