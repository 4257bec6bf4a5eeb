"""NAD in three dimensions: what the scheme must keep, what the filter must do, and that equal slices move as planes."""

import itertools
import math

import numpy as np
import pytest

from gpu_tomoclass.baseline import nad_volume_kernels as kernels
from gpu_tomoclass.baseline.nad_reference import NadParameters, nad_plane, smoothed
from gpu_tomoclass.baseline.nad_volume_reference import (
    PAIRS,
    diffused,
    diffusion_tensor,
    eigen,
    gradient,
    nad_volume,
    noise_statistics,
    steepness,
    step_statistics,
    structure_tensor,
)
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import UsageError


def parameters(**changes):
    return NadParameters(**{"dimensions": 3, "noise_area": (0, 0, 0), **changes})


EED = parameters(balance=0, grey_level=0, noise_area=None)


def random_volume(shape=(14, 17, 15), seed=0):
    return np.random.default_rng(seed).normal(100, 20, shape)


def constant_tensor(shape, matrix):
    return np.stack([np.full(shape, float(matrix[i][j])) for i, j in PAIRS])


def along(*direction):
    """v v^T of a direction (z, y, x)."""
    v = np.array(direction, float) / np.linalg.norm(direction)
    return np.outer(v, v)


def steps(u, tensor, *, n, time_step):
    for _ in range(n):
        u = diffused(u, tensor, time_step=time_step)
    return u


def tensor_of(u, p):
    s = smoothed(u, p.sigma)
    structure, grey, steep = structure_tensor(s, p), smoothed(s, p.structure_sigma), steepness(s)
    box = p.noise_box(*u.shape)
    noise = noise_statistics(structure[(slice(None), *box)], grey[box], p)
    return diffusion_tensor(
        structure, steep, grey, p, step_statistics(p, mean_steepness=float(steep.mean()), noise=noise)
    )


@pytest.mark.parametrize("shape", [(14, 17, 15), (1, 12, 9), (12, 1, 9), (7, 12, 1), (2, 3, 2), (1, 1, 1)])
def test_the_mean_stays(shape):
    volume = random_volume(shape)
    result = nad_volume(volume, parameters())
    assert abs(result.mean() / volume.mean() - 1) <= 2e-14
    if volume.size > 3:
        assert result.std() < volume.std()


def test_a_constant_volume_stays():
    volume = np.full((5, 7, 9), 37.25)
    np.testing.assert_array_equal(nad_volume(volume, parameters(iterations=5)), volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_equal_slices_move_as_a_plane(axis):
    # An edge and a line in noise; the strongest direction, along which nothing varies, is across the slices.
    y, x = np.mgrid[:26, :31]
    plane = random_volume((26, 31), seed=4) + 100 * (x > 15) + 80 * (abs(y - x // 2) < 2)
    expected = nad_plane(plane, NadParameters(noise_area=(6, 8), iterations=20))
    place = [6, 8]  # x, y of the plane, and any place across
    place.insert(2 - axis, 1)
    volume = nad_volume(
        np.repeat(np.expand_dims(plane, axis), 4, axis=axis), parameters(noise_area=tuple(place), iterations=20)
    )
    assert np.ptp(volume, axis=axis).max() <= 1e-12
    np.testing.assert_allclose(volume.take(2, axis=axis), expected, rtol=0, atol=2e-12)


def test_axes_are_equal():
    volume = random_volume() + 100 * (np.arange(15) > 7)
    place = (3, 5, 7)  # x, y, z
    expected = nad_volume(volume, parameters(noise_area=place, iterations=4))
    for order in itertools.permutations(range(3)):
        moved = tuple(place[2 - axis] for axis in order)[::-1]
        result = nad_volume(volume.transpose(order), parameters(noise_area=moved, iterations=4))
        np.testing.assert_allclose(result, expected.transpose(order), rtol=0, atol=1e-10)
    mirrored = nad_volume(volume[::-1, :, ::-1], parameters(noise_area=(11, 5, 6), iterations=4))
    np.testing.assert_allclose(mirrored, expected[::-1, :, ::-1], rtol=0, atol=1e-10)


def test_polynomials_with_a_constant_tensor():
    # div(D grad u) of x_i x_j with a constant D is D_ij + D_ji, of a linear u nothing.
    matrix = np.array([[0.4, 0.1, -0.15], [0.1, 0.7, 0.25], [-0.15, 0.25, 0.5]])
    axes = np.mgrid[:7, :8, :9].astype(np.float64)
    for i in range(3):
        for j in range(i, 3):
            u = axes[i] * axes[j]
            moved = diffused(u, constant_tensor(u.shape, matrix), time_step=0.1)
            change = (moved - u)[1:-1, 1:-1, 1:-1]
            np.testing.assert_allclose(change, 0.1 * 2 * matrix[i, j], rtol=0, atol=1e-12)
    u = 3 * axes[2] - 2 * axes[1] + axes[0]
    moved = diffused(u, constant_tensor(u.shape, matrix), time_step=0.1)
    np.testing.assert_allclose((moved - u)[1:-1, 1:-1, 1:-1], 0, rtol=0, atol=1e-12)


def test_a_varying_tensor_is_inside_the_divergence():
    # u = x with D_xx = 1 + x / 20, D_xy = y / 30, D_xz = z / 40: div(D grad u) = 1 / 20 + 1 / 30 + 1 / 40.
    z, y, x = np.mgrid[:6, :7, :8].astype(np.float64)
    tensor = constant_tensor(x.shape, np.eye(3))
    tensor[PAIRS.index((2, 2))] = 1 + x / 20
    tensor[PAIRS.index((2, 1))] = y / 30
    tensor[PAIRS.index((2, 0))] = z / 40
    change = (diffused(x, tensor, time_step=0.1) - x)[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(change, 0.1 * (1 / 20 + 1 / 30 + 1 / 40), rtol=0, atol=1e-13)


def test_stable_up_to_the_bound_and_not_above():
    z, y, x = np.mgrid[:12, :12, :12]
    volume = random_volume((12, 12, 12)) + (-1.0) ** (x + y + z)  # what grows first
    identity = constant_tensor(volume.shape, np.eye(3))
    assert steps(volume, identity, n=200, time_step=0.166).std() <= volume.std()
    assert steps(volume, identity, n=200, time_step=0.18).std() > 100 * volume.std()


@pytest.mark.parametrize("direction", [(1, 1, 1), (0.22, 0.44, 0.87), (1, -1, 1), (0, 1, 1), (0, 0, 1)])
def test_every_rank_1_tensor_decays(direction):
    # The usual stencil of positive weights grows 1e7 times in 60 steps along (1, 1, 1).
    z, y, x = np.mgrid[:13, :12, :14]
    volume = random_volume((13, 12, 14)) + 20 * (-1.0) ** (x + y + z)
    tensor = constant_tensor(volume.shape, along(*direction))
    for time_step in (0.1, 0.16):
        previous = volume
        for _ in range(60):
            moved = diffused(previous, tensor, time_step=time_step)
            assert moved.std() < previous.std()
            previous = moved
        assert previous.std() < 0.4 * volume.std()


def test_first_order_in_time():
    volume = smoothed(random_volume(), 1.5)
    tensor = tensor_of(volume, parameters(noise_area=(5, 5, 5)))
    end = [steps(volume, tensor, n=n, time_step=1.2 / n) for n in (8, 16, 32)]
    first, second = np.abs(end[0] - end[1]).max(), np.abs(end[1] - end[2]).max()
    assert 0.95 < math.log2(first / second) < 1.15


def test_the_heat_equation_along_every_axis():
    # cos(k (x + 1/2)) fits the mirrored borders; its amplitude falls by exp(-k^2 t), on the grid a little slower.
    k, t, n = 2 * math.pi * 2 / 32, 2.0, 100
    wave = np.cos(k * (np.arange(32) + 0.5))
    for axis in range(3):
        shape = [3, 3, 3]
        shape[axis] = 32
        u = np.broadcast_to(wave.reshape([-1 if i == axis else 1 for i in range(3)]), shape)
        result = steps(u, constant_tensor(u.shape, np.eye(3)), n=n, time_step=t / n)
        assert (result / u).max() == pytest.approx(math.exp(-k * k * t), abs=4e-3)
        assert (result / u).max() == pytest.approx((1 - (2 - 2 * math.cos(k)) * t / n) ** n, abs=1e-12)
        assert np.ptp(result / u) < 1e-12


def test_maximum_principle_of_a_scalar_tensor():
    volume = random_volume()
    low, high = volume.min(), volume.max()
    for _ in range(20):
        g = 1 / (1 + (steepness(volume) / 10) ** 2)
        tensor = np.zeros((6, *volume.shape))
        tensor[[0, 3, 5]] = g
        volume = diffused(volume, tensor, time_step=1 / 6)
        assert low <= volume.min()
        assert volume.max() <= high
        low, high = volume.min(), volume.max()


def test_the_tensor_has_its_eigenvalues_by_the_table():
    """Built from nothing but the definition, one voxel at a time."""
    volume = random_volume((9, 10, 11)) + 60 * (np.arange(11) > 5)
    p = parameters(noise_area=(2, 4, 4), second_eigenvector=0.3, balance=0.6)
    s = smoothed(volume, p.sigma)
    structure, grey, steep = structure_tensor(s, p), smoothed(s, p.structure_sigma), steepness(s)
    box = p.noise_box(*volume.shape)
    m = np.array([np.linalg.eigvalsh(matrix_of(structure, at)) for at in np.ndindex(volume.shape)])
    m = m.reshape(*volume.shape, 3)
    t = (m[box][..., 2] - m[box][..., 0]).mean() / p.balance
    k, tensor = steep.mean(), tensor_of(volume, p)
    seen = set()
    for at in np.ndindex(volume.shape):
        (m3, m2, m1), vectors = np.linalg.eigh(matrix_of(structure, at))
        share = min(1.0, max(0.0, 10 * (m1 - m3) / t - 9.5))
        seen.add(math.ceil(share))
        dark = 0.3 * min(1.0, max(0.0, 0.5 + (grey[box].mean() - grey[at]) / grey[box].std()))
        eed = 1 / math.sqrt(1 + (steep[at] / k) ** 2)
        plane = 0.001 + 0.3 * 0.999 * math.exp(-((t / (m1 - m2)) ** 2))
        line = 0.001 + 0.999 * math.exp(-((t / (m1 - m3)) ** 2))
        wanted = np.array([(1 - share) + share * line, (1 - share) * eed + share * plane])
        wanted = np.append(wanted, (1 - share) * eed + share * 0.001)
        wanted += dark * (1 - wanted)
        np.testing.assert_allclose(matrix_of(tensor, at), (vectors * wanted) @ vectors.T, rtol=0, atol=1e-9)
    assert seen == {0, 1}


def matrix_of(components, at):
    matrix = np.empty((3, 3))
    for component, (i, j) in zip(components, PAIRS, strict=True):
        matrix[i, j] = matrix[j, i] = component[at]
    return matrix


def test_eigenvectors_of_degenerate_tensors_are_orthogonal():
    for matrix in (np.zeros((3, 3)), np.eye(3), along(1, 2, 3), np.eye(3) - along(1, 2, 3)):
        values, vectors = eigen(constant_tensor((1, 1, 1), matrix))
        np.testing.assert_allclose(vectors[0, 0, 0].T @ vectors[0, 0, 0], np.eye(3), atol=1e-14)
        np.testing.assert_allclose(
            (vectors * values[..., None, :] @ vectors.swapaxes(-1, -2))[0, 0, 0], matrix, atol=1e-14
        )


def test_gradient_is_that_of_numpy_inside():
    volume = random_volume()
    inner = (slice(1, -1),) * 3
    for ours, theirs in zip(gradient(volume), np.gradient(volume), strict=True):
        np.testing.assert_allclose(ours[inner], theirs[inner], rtol=0, atol=1e-13)


def by_kernels(volume, p):
    """Of the CPU, which give what the reference gives (tests/kernels) in a tenth of the time."""
    return kernels.nad_volume(volume.astype(np.float32), device=NativeDevice(threads=1), parameters=p)


def dashed_line(sd=15.0):
    """A dashed line along (1, 1, 1) in noise, its core, and where its gaps are."""
    z, y, x = np.mgrid[:36, :36, :36].astype(np.float64)
    length = (x + y + z) / math.sqrt(3)
    across = np.sqrt(np.maximum(x * x + y * y + z * z - length * length, 0))
    gap = (length % 12) < 3
    line = 100 * np.exp(-0.5 * (across / 2.0) ** 2)
    core = (across < 0.8) & (length > 16) & (length < 46)
    noise = np.random.default_rng(5).normal(0, sd, x.shape)
    return np.where(gap, 0.0, line) + noise, core & ~gap, core & gap, across > 12


def test_a_dashed_line_in_noise():
    """All fill its gaps and quieten what is around; CED keeps the line itself better, and best without plane terms."""
    volume, line, gap, beside = dashed_line()
    p = {"iterations": 25, "grey_level": 0, "noise_area": (3, 32, 3)}
    results = {
        "eed": by_kernels(volume, parameters(**p, balance=0)),
        "hybrid": by_kernels(volume, parameters(**p)),
        "lines alone": by_kernels(volume, parameters(**p, second_eigenvector=0)),
    }
    for result in results.values():
        assert result[gap].mean() / result[line].mean() > volume[gap].mean() / volume[line].mean() + 0.03
        assert result[beside].std() < 0.1 * 15
    kept = {name: result[line].mean() / volume[line].mean() for name, result in results.items()}
    assert kept["eed"] + 0.05 < kept["hybrid"] < kept["lines alone"] - 0.05
    assert 0.9 < kept["lines alone"] < 1


def test_float32_follows_float64():
    volume = random_volume() + 100 * (np.arange(15) > 7)
    p = parameters(noise_area=(3, 8, 7), iterations=20)
    single = nad_volume(volume, p, dtype=np.float32)
    assert single.dtype == np.float32
    assert np.abs(single - nad_volume(volume, p)).max() < 5e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time_step": 0.17}, "in 3 dimensions it is stable above 0 up to 1/6"),
        ({"noise_area": None}, "name x, y, z of a point amid noise"),
        ({"noise_area": (3, 3)}, "in 3 dimensions is x, y, z, not"),
        ({"dimensions": 4}, "choose 2 or 3"),
    ],
)
def test_refused_parameters(wrong, message):
    with pytest.raises(UsageError, match=message):
        parameters(**wrong)


def test_a_noise_area_outside_the_volume_is_refused():
    with pytest.raises(UsageError, match="x 4, y 3, z 20, is outside of a volume of 20 x 30 x 40"):
        nad_volume(np.zeros((20, 30, 40)), parameters(noise_area=(4, 3, 20)))


def test_the_noise_box_is_cut_at_the_borders():
    assert parameters(noise_area=(2, 20, 9)).noise_box(10, 40, 40) == (slice(2, 10), slice(13, 28), slice(0, 10))
