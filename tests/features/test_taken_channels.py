"""Channels that are taken family by family, and diffusion by groups of jobs: the same values in less memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gpu_tomoclass.device import DryDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.features import FeatureBank, FeatureEngine
from gpu_tomoclass.features.accelerated import diffusion

FAMILIES = ["gaussian_blur", "hessian", "minimum_3d", "maximum_3d", "neighbors"]


def planes(n: int = 3) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 900, (n, 21, 37)).astype(np.float32)


def test_taken_channels_are_those_of_the_array() -> None:
    """Also where blocks of a family do not follow each other."""
    blocks = FeatureBank.create(FAMILIES, sigma_max=4).blocks
    blocks = (*blocks[::2], *blocks[1::2])
    wanted = FeatureEngine(NativeDevice(threads=1), blocks).compute(planes())
    taken = np.full((len(wanted), wanted[0].size), np.nan, np.float32)
    engine = FeatureEngine(NativeDevice(threads=1), blocks)

    def take(values: np.ndarray, numbers: Sequence[int]) -> None:
        assert np.isnan(taken[numbers]).all()
        taken[numbers] = values

    last = engine.compute(planes(), take=take)
    np.testing.assert_array_equal(taken.reshape(wanted.shape), wanted)
    assert len(last) < len(wanted)


def test_diffusion_by_groups_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd and even numbers of steps, so that results lie in either image."""
    blocks = [b for b in FeatureBank.create(["anisotropic_diffusion"]).blocks if b.family == "anisotropic_diffusion"]
    device = NativeDevice(threads=1, gpu_plan=True)
    some = planes(2)[:, :9, :11].copy()
    wanted = FeatureEngine(NativeDevice(threads=1), blocks[:3]).compute(some).copy()
    for pixels in (2**27, 4 * some.size, 1):
        monkeypatch.setattr(diffusion, "PIXELS_AT_ONCE", pixels)
        np.testing.assert_array_equal(FeatureEngine(device, blocks[:3]).compute(some), wanted)


def test_large_planes_take_a_few_jobs_at_once() -> None:
    """28 bytes per pixel for each of six jobs, not of all ten; 10 channels and the image have 44."""
    device = DryDevice("cuda")
    blocks = [b for b in FeatureBank.create(["anisotropic_diffusion"]).blocks if b.family == "anisotropic_diffusion"]
    engine = FeatureEngine(device, blocks)
    before = device.n_bytes
    engine.compute(np.empty((1, 4096, 4096), np.float32), take=lambda values, numbers: None)
    assert (device.n_bytes - before) / 4096**2 < 6 * 28 + 44 + 1
