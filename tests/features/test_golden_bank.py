"""Every channel of every family equals what Trainable Weka Segmentation itself computed."""

from __future__ import annotations

import numpy as np
import pytest
from golden_sets import GOLDEN_NAMES, OTHER_SETTINGS, GoldenSet

from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.families import PLANE_FAMILIES

# TWS computes Gabor by single-precision FFT: its own error is up to 1e-5 of a channel's standard deviation.
GABOR_TOLERANCE = 1e-5

BANK = FeatureBank.create("all")


@pytest.fixture(scope="module")
def computed(golden: dict[str, GoldenSet]) -> dict[str, np.ndarray]:
    return {name: BANK.compute(golden[name].image) for name in GOLDEN_NAMES}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_channel_names_and_order(golden: dict[str, GoldenSet], name: str) -> None:
    assert golden[name].channels == BANK.channels


@pytest.mark.parametrize("family", ["original", *PLANE_FAMILIES])
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_family_equals_tws(
    golden: dict[str, GoldenSet], computed: dict[str, np.ndarray], name: str, family: str
) -> None:
    rows = [i for block in BANK.blocks if block.family == family for i in range(block.start, block.stop)]
    assert rows
    ours, theirs = computed[name][rows], golden[name].features[rows]
    if family == "gabor":
        error = np.abs(ours.astype(np.float64) - theirs).max(axis=(1, 2)) / theirs.std(axis=(1, 2), dtype=np.float64)
        assert error.max() <= GABOR_TOLERANCE
    else:
        np.testing.assert_array_equal(ours, theirs)  # every pixel, in every bit but the sign of 0


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_blurs_on_reduced_lines_equal_tws(name: str) -> None:
    """Standard deviations above 8.5 pixels: lines reduced by 3 and by 6."""
    golden = GoldenSet(name)
    bank = FeatureBank.create(
        ["gaussian_blur", "sobel_filter", "hessian", "difference_of_gaussians"], sigma_min=32, sigma_max=64
    )
    computed = dict(zip(bank.channels, bank.compute(golden.image), strict=True))
    for channel, theirs in golden.channels_of("large_sigma").items():
        np.testing.assert_array_equal(computed[channel], theirs, err_msg=channel)


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_legacy_hessian_equals_tws(name: str) -> None:
    """TWS 4 told to compute as before 3.2.25."""
    golden = GoldenSet(name)
    bank = FeatureBank.create(["hessian"], sigmas={"hessian": [0, 16]}, hessian="legacy")
    computed = dict(zip(bank.channels, bank.compute(golden.image), strict=True))
    for channel, theirs in golden.channels_of("old_hessian").items():
        np.testing.assert_array_equal(computed[channel], theirs, err_msg=channel)
    current = FeatureBank.create(["hessian"], sigmas={"hessian": [0, 16]}).compute(golden.image)
    same = [(a == b).all() for a, b in zip(current, computed.values(), strict=True)]
    assert same == [not name.startswith("Hessian_Eigenvalue") for name in bank.channels]


def test_exact_gabor_equals_tws(golden: dict[str, GoldenSet]) -> None:
    """Its Fourier transform and its sums, bit for bit; of small8, tests/training/test_row_order.py grows a forest."""
    bank, small = FeatureBank.create(["gabor"], gabor="exact"), golden["small16"]
    np.testing.assert_array_equal(bank.compute(small.image), small.features_of(*bank.channels))


def test_golden_sets_could_fail(golden: dict[str, GoldenSet]) -> None:
    """No golden channel is constant (such a one would agree with nearly anything), apart from the known ones."""
    for name in GOLDEN_NAMES:
        flat = [c for c, values in zip(BANK.channels, golden[name].features, strict=True) if np.ptp(values) == 0]
        assert flat == []
