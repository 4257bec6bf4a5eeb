"""NAD: what the scheme must keep, and what the filter must do."""

import math

import numpy as np
import pytest

from gpu_tomoclass.baseline.nad_kernels import nad_planes
from gpu_tomoclass.baseline.nad_reference import NadParameters, diffused, diffusion_tensor, nad_plane, smoothed
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import UsageError

EED = NadParameters(balance=0, grey_level=0)


def random_plane(shape=(40, 33), seed=0):
    return np.random.default_rng(seed).normal(100, 20, shape)


def constant_tensor(shape, xx, xy, yy):
    return tuple(np.full(shape, value) for value in (xx, xy, yy))


def steps(u, tensor, *, n, time_step):
    for _ in range(n):
        u = diffused(u, *tensor, time_step=time_step)
    return u


@pytest.mark.parametrize("shape", [(40, 33), (1, 50), (50, 1), (2, 3), (1, 1)])
def test_the_mean_stays(shape):
    plane = random_plane(shape)
    result = nad_plane(plane, NadParameters(noise_area=(0, 0)))
    assert abs(result.mean() / plane.mean() - 1) <= 2e-14
    if plane.size > 3:
        assert result.std() < plane.std()


def test_a_constant_plane_stays():
    plane = np.full((20, 25), 37.25)
    np.testing.assert_array_equal(nad_plane(plane, NadParameters(noise_area=(3, 4), iterations=5)), plane)


def test_polynomials_with_a_constant_tensor():
    y, x = np.mgrid[:12, :14].astype(np.float64)
    xx, xy, yy = 0.7, 0.25, 0.4
    for u, change in ((x * x, 2 * xx), (y * y, 2 * yy), (x * y, 2 * xy), (3 * x - 2 * y, 0.0)):
        moved = diffused(u, *constant_tensor(u.shape, xx, xy, yy), time_step=0.1)
        np.testing.assert_allclose((moved - u)[1:-1, 1:-1], 0.1 * change, rtol=0, atol=1e-12)


def test_a_varying_tensor_is_inside_the_divergence():
    # u = x, D_xx = 1 + x / 20, D_xy = y / 30: div(D grad u) = d(D_xx)/dx + d(D_xy)/dy.
    y, x = np.mgrid[:9, :11].astype(np.float64)
    moved = diffused(x, 1 + x / 20, y / 30, np.ones_like(x), time_step=0.2)
    np.testing.assert_allclose((moved - x)[1:-1, 1:-1], 0.2 * (1 / 20 + 1 / 30), rtol=0, atol=1e-13)


def test_stable_up_to_the_bound_and_not_above():
    plane = random_plane((24, 24))
    y, x = np.mgrid[:24, :24]
    plane += (-1.0) ** (x + y)  # what grows first
    identity = constant_tensor(plane.shape, 1, 0, 1)
    assert steps(plane, identity, n=300, time_step=0.25).std() <= plane.std()
    assert steps(plane, identity, n=300, time_step=0.26).std() > 100 * plane.std()


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 110, 135, 160])
def test_every_rank_1_tensor_decays(angle):
    # Stencils that keep weights positive need not: their mixed terms can grow at the highest frequency.
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    plane = random_plane((31, 30))
    tensor = constant_tensor(plane.shape, c * c, c * s, s * s)
    for time_step in (0.1, 0.25):
        previous = plane
        for _ in range(60):
            moved = diffused(previous, *tensor, time_step=time_step)
            assert moved.std() < previous.std()
            previous = moved
        assert previous.std() < 0.4 * plane.std()


def test_first_order_in_time():
    plane = smoothed(random_plane(), 2.0)
    parameters = NadParameters(noise_area=(5, 5))
    tensor = diffusion_tensor(plane, parameters, box=parameters.noise_box(*plane.shape))
    end = [steps(plane, tensor, n=n, time_step=2.0 / n) for n in (10, 20, 40)]
    first, second = np.abs(end[0] - end[1]).max(), np.abs(end[1] - end[2]).max()
    assert 0.95 < math.log2(first / second) < 1.15


def test_the_heat_equation():
    # cos(k (x + 1/2)) fits the mirrored borders; its amplitude falls by exp(-k^2 t).
    k, t = 2 * math.pi * 4 / 64, 2.0
    u = np.cos(k * (np.arange(64) + 0.5)) * np.ones((5, 1))
    result = steps(u, constant_tensor(u.shape, 1, 0, 1), n=200, time_step=t / 200)
    assert (result / u).max() == pytest.approx(math.exp(-k * k * t), abs=4e-3)
    assert (result / u).max() == pytest.approx((1 - (2 - 2 * math.cos(k)) * t / 200) ** 200, abs=1e-12)
    assert np.ptp(result / u) < 1e-12


def test_maximum_principle_of_eed():
    plane = random_plane()
    low, high = plane.min(), plane.max()
    for _ in range(20):
        plane = nad_plane(plane, NadParameters(balance=0, grey_level=0, iterations=1, time_step=0.25))
        assert low <= plane.min()
        assert plane.max() <= high
        low, high = plane.min(), plane.max()


@pytest.mark.parametrize("angle", [0, 17, 45, 130])
def test_ced_keeps_stripes_and_smooths_along_them(angle):
    y, x = np.mgrid[:96, :96] - 48.0
    wave = np.cos(2 * np.pi / 24 * (x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))))
    clean = 100 + 50 * wave
    noisy = clean + np.random.default_rng(1).normal(0, 10, clean.shape)
    for plane in (clean, noisy):
        plane[:16, :16] = 100  # a noise area without noise: CED everywhere else
    ced = NadParameters(
        balance=1, second_eigenvector=1, grey_level=0, structure=1.0, noise_area=(3, 3), iterations=80, time_step=0.25
    )
    middle = np.s_[30:-24, 30:-24]
    kept, smoother = nad_plane(clean, ced)[middle], nad_plane(noisy, ced)[middle]
    wave, clean = wave[middle], clean[middle]
    assert 0.985 < ((kept - 100) * wave).mean() / ((clean - 100) * wave).mean() <= 1
    assert (smoother - clean).std() < 0.4 * 10


def test_eed_smooths_noise_and_keeps_the_step():
    clean = np.where(np.arange(60) < 30, 50.0, 150.0) * np.ones((40, 1))
    noisy = clean + np.random.default_rng(2).normal(0, 5, clean.shape)
    result = nad_plane(noisy, EED)
    assert result[:, 3:26].std() < 0.35 * 5
    assert result[:, 31].mean() - result[:, 28].mean() > 85


def test_the_dark_side_is_smoothed_more():
    clean = np.where(np.arange(60) < 30, 50.0, 150.0) * np.ones((40, 1))
    noisy = clean + np.random.default_rng(3).normal(0, 5, clean.shape)
    some, much = (
        nad_plane(noisy, NadParameters(balance=0, grey_level=g, noise_area=(12, 20), iterations=8)) for g in (0.0, 1.0)
    )
    assert much[:, 4:20].std() < 0.95 * some[:, 4:20].std()
    np.testing.assert_allclose(much[:, 40:], some[:, 40:], rtol=0, atol=0.5)


def test_float32_follows_float64():
    plane = random_plane((48, 50))
    parameters = NadParameters(noise_area=(20, 20))
    single = nad_plane(plane, parameters, dtype=np.float32)
    assert single.dtype == np.float32
    assert np.abs(single - nad_plane(plane, parameters)).max() < 2e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time_step": 0.26}, "1/4"),
        ({"time_step": 0.0}, "1/4"),
        ({"iterations": 0}, "1 iteration or more"),
        ({"balance": 1.5}, "balance of NAD must be from 0 to 1"),
        ({"contrast": 0.0}, "contrast of NAD must be above 0"),
        ({"structure": -1.0}, "structure of NAD must be above 0"),
        ({"sigma": math.nan}, "sigma of NAD must be from 0 to 64"),
        ({"noise_area": None}, "was given no noise area"),
    ],
)
def test_refused_parameters(wrong, message):
    with pytest.raises(UsageError, match=message):
        NadParameters(**{"noise_area": (3, 3), **wrong})


def test_a_noise_area_outside_the_plane_is_refused():
    with pytest.raises(UsageError, match="x 40, y 3, is outside of planes of 30 x 40"):
        nad_plane(np.zeros((30, 40)), NadParameters(noise_area=(40, 3)))


def test_planes_are_diffused_each_for_itself():
    planes = np.stack([random_plane((12, 14), seed) for seed in (0, 1)])
    parameters = NadParameters(noise_area=(3, 3), iterations=3)
    result = nad_planes(planes, device=NumpyDevice(), parameters=parameters)
    assert result.dtype == np.float32
    for plane, ours in zip(planes, result, strict=True):
        np.testing.assert_array_equal(ours, nad_plane(plane, parameters).astype(np.float32))
    with pytest.raises(ValueError, match=r"not \(12, 14\)"):
        nad_planes(planes[0], device=NumpyDevice(), parameters=parameters)
