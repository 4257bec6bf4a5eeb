"""The feature bank: which channels, in which order, from what, and how far they look."""

from __future__ import annotations

import json
import re
import tracemalloc

import numpy as np
import pytest

from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.bank_description import DEFINITION_VERSION
from gpu_tomoclass.features.families import FAMILIES, FEATURE_SETS, PLANE_FAMILIES
from gpu_tomoclass.features.reference.source import FeatureSource

ALL = FeatureBank.create("all")


def plane(shape: tuple[int, int] = (40, 50), dtype: str = "u2") -> np.ndarray:
    return np.random.default_rng(11).integers(0, 250, shape).astype(dtype)


# --- which channels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "families", "channels"),
    [("weka-default", 5, 76), ("paper", 16, 252), ("all", 20, 272)],
)
def test_feature_sets(features: str, families: int, channels: int) -> None:
    bank = FeatureBank.create(features)
    assert (len(bank.families), bank.n_channels) == (families, channels)
    assert bank.channels[0] == "original"
    assert len(set(bank.channels)) == channels


def test_paper_leaves_out_four_families() -> None:
    assert set(PLANE_FAMILIES) - set(FEATURE_SETS["paper"]) == {"mean", "minimum", "maximum", "lipschitz"}


def test_order_of_names_does_not_matter() -> None:
    assert FeatureBank.create(["median", "gabor", "hessian"]) == FeatureBank.create(["hessian", "median", "gabor"])
    assert FeatureBank.create("hessian") == FeatureBank.create(["hessian"])


def test_no_zero_sigma_from_2_on() -> None:
    channels = FeatureBank.create("all", sigma_min=2.0, sigma_max=32.0).channels
    assert not [name for name in channels if name.endswith("_0.0")]
    assert len(channels) == 272 - 9
    assert [n for n in channels if n.startswith("Gaussian")] == [f"Gaussian_blur_{s}.0" for s in (2, 4, 8, 16, 32)]


def test_membrane_settings_are_in_the_names() -> None:
    bank = FeatureBank.create("all", membrane_thickness=3, membrane_patch=11)
    assert "Membrane_projections_5_11_3" in bank.channels
    assert "Kuwahara_11_ 10_2" in bank.channels
    assert "Anisotropic_diffusion_20_16_0.35_0.9_3.0" in bank.channels


def test_the_largest_sigma_is_a_limit() -> None:
    assert FeatureBank.create("median", sigma_max=15.9).sigmas == ((1.0, 2.0, 4.0, 8.0),)
    assert FeatureBank.create("median", sigma_min=0.3, sigma_max=2.4).n_channels == 1 + 4  # 2.4 is 8 x 0.3 in float32


def test_names_of_sigmas_that_float32_cannot_hold() -> None:
    """TWS keeps sigma as a float, but hands it to the ImageScience families as a double, and prints that."""
    channels = FeatureBank.create("all", sigma_min=1.3, sigma_max=2.6).channels
    assert {"Gaussian_blur_1.3", "Difference_of_gaussians_2.6_1.3", "Median_2.6"} <= set(channels)
    assert {"Laplacian_1.2999999523162842", "Structure_largest_2.5999999046325684_3.0"} <= set(channels)


def test_whole_pixels_from_fractional_sigmas() -> None:
    """TWS cuts the fraction off each sigma, but for Neighbors off the smallest and the largest, and then doubles."""
    bank = FeatureBank.create("all", sigma_min=1.5, sigma_max=12.5)
    names = " ".join(bank.channels)
    assert [int(n) for n in re.findall(r"Entropy_(\d+)_32\b", names)] == [1, 3, 6, 12]
    assert [int(n) for n in re.findall(r"Anisotropic_diffusion_20_(\d+)_0\.1_", names)] == [1, 3, 6, 12]
    assert [int(n) for n in re.findall(r"Neighbors_(\d+)_0\b", names)] == [1, 2, 4, 8]
    small = FeatureBank.create(["entropy", "neighbors", "mean"], sigma_min=0.5, sigma_max=2.0)
    assert small.sigmas == ((0.5, 1.0, 2.0), (1.0, 2.0), (1.0, 2.0))


def test_explicit_sigmas() -> None:
    bank = FeatureBank.create(
        ["gaussian_blur", "sobel_filter", "difference_of_gaussians", "entropy"],
        sigmas={"gaussian_blur": [3, 1], "sobel_filter": [0, 5], "difference_of_gaussians": [2, 3, 5], "entropy": [3]},
    )
    assert bank.channels == (
        "original",
        "Sobel_filter_0.0",
        "Gaussian_blur_1.0",
        "Gaussian_blur_3.0",
        "Difference_of_gaussians_3.0_2.0",
        *(f"Entropy_3_{bins}" for bins in (32, 64, 128, 256)),
        "Sobel_filter_5.0",
        "Difference_of_gaussians_5.0_2.0",
        "Difference_of_gaussians_5.0_3.0",
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"features": "papers"}, "weka-default"),
        ({"features": ["gaussian", "hessian"]}, "gaussian_blur"),
        ({"features": []}, "no features"),
        ({"sigma_min": 0.0}, "smallest sigma"),
        ({"sigma_min": -1.0}, "smallest sigma"),
        ({"sigma_max": float("nan")}, "largest sigma"),
        ({"sigma_max": float("inf")}, "largest sigma"),
        ({"sigma_min": 4.0, "sigma_max": 2.0}, "above the largest"),
        ({"sigma_min": 0.25, "sigma_max": 0.5}, "1 pixel or more"),
        ({"membrane_patch": 20}, "odd number from 3"),
        ({"membrane_patch": 1}, "odd number from 3"),
        ({"membrane_thickness": 0}, "1 to 18"),
        ({"membrane_thickness": 19}, "1 to 18"),
        ({"sigmas": {"mean": [1.0]}}, "mean"),  # not in "paper"
        ({"sigmas": {"gabor": [1.0]}}, "gabor"),
        ({"sigmas": {"hessian": []}}, "hessian needs one or more"),
        ({"sigmas": {"median": [0.0]}}, "each sigma of median"),
        ({"sigmas": {"hessian": [-2.0]}}, "each sigma of hessian"),
        ({"sigmas": {"hessian": [1e60]}}, "each sigma of hessian"),
        ({"sigmas": {"entropy": [1.5]}}, "whole numbers"),
        ({"sigmas": {"entropy": [0.5]}}, "whole numbers"),
    ],
)
def test_impossible_requests_name_what_is_possible(arguments: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        FeatureBank.create(**arguments)


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_blocks_cover_the_channels_in_order() -> None:
    assert tuple(name for block in ALL.blocks for name in block.channels) == ALL.channels
    assert [block.start for block in ALL.blocks] == [0, *(block.stop for block in ALL.blocks[:-1])]
    assert ALL.blocks[-1].stop == ALL.n_channels


def test_keys_are_unique_and_safe_as_file_names() -> None:
    banks = [
        ALL,
        FeatureBank.create("all", sigma_min=1.5),
        FeatureBank.create("all", membrane_patch=21, membrane_thickness=2),
    ]
    by_key: dict[str, tuple[str, ...]] = {}
    for block in (block for bank in banks for block in bank.blocks):
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", block.key)
        assert by_key.setdefault(block.key, block.channels) == block.channels  # one key, one meaning
    assert len({block.key for block in ALL.blocks}) == len(ALL.blocks)


def test_subset_gives_the_blocks_of_some_channels() -> None:
    blocks = ALL.subset(["Hessian_Trace_2.0", "original", "Hessian_2.0"])
    assert [block.key for block in blocks] == ["original", "hessian-sigma2.0"]
    with pytest.raises(UsageError, match="Hessian_3"):
        ALL.subset(["Hessian_3.0"])


def test_blocks_computed_alone_are_the_same() -> None:
    """Nothing that one family leaves behind changes another."""
    image = plane()
    together = ALL.compute(image)
    for block in ALL.blocks:
        np.testing.assert_array_equal(ALL.compute(image, blocks=[block]), together[block.start : block.stop])


def test_compute_with_blocks_out_and_timings() -> None:
    image = plane()
    blocks = ALL.subset(["Median_2.0", "Gaussian_blur_4.0", "Gaussian_blur_8.0"])
    timings = {"median": 5.0}
    out = np.empty((3, *image.shape), dtype=np.float32)
    assert ALL.compute(image, blocks=blocks, out=out, timings=timings) is out
    assert out.shape[0] == sum(len(block.channels) for block in blocks)
    assert timings["median"] > 5.0
    assert set(timings) == {"median", "gaussian_blur"}
    for wrong in (np.empty((2, *image.shape), dtype=np.float32), np.empty((3, *image.shape))):
        with pytest.raises(UsageError, match="float32"):
            ALL.compute(image, blocks=blocks, out=wrong)


def test_display_range_reaches_bilateral_and_lipschitz_only() -> None:
    image = plane(dtype="f4")
    same = ALL.compute(image)
    other = ALL.compute(image, display_range=(50.0, 100.0))
    changed = {b.family for b in ALL.blocks if not np.array_equal(same[b.start : b.stop], other[b.start : b.stop])}
    assert changed == {"bilateral", "lipschitz"}


# --- how far they look, and how much memory they take ---------------------------------------------------------------


def test_a_pixel_does_not_matter_beyond_the_radius() -> None:
    """It does matter further out than half of it, so radii are not just large; and far out where there is no radius."""
    bank = FeatureBank.create("all", sigma_max=4.0)
    image = plane((101, 103)) + np.uint16(1000)
    low, high = image.copy(), image.copy()
    low[50, 51], high[50, 51] = 0, 60000
    y, x = np.mgrid[:101, :103]
    distance = np.maximum(abs(y - 50), abs(x - 51))
    sources = [FeatureSource(values) for values in (image, low, high)]
    for block in bank.blocks:
        before, *after = (bank.compute_block(source, block) for source in sources)
        furthest = max(distance[(before != values).any(axis=0)].max(initial=0) for values in after)
        if block.radius is not None:
            assert block.radius == block.reach
            assert block.reach / 2 <= furthest <= block.reach, block.key
        else:
            assert FAMILIES[block.family].whole_plane
            assert furthest > min(block.reach, 49), block.key


def test_reach_and_radius_of_a_bank() -> None:
    bank = FeatureBank.create(["gaussian_blur", "hessian"])
    assert bank.radius == bank.reach == 27 + 2
    assert ALL.radius is None
    assert ALL.reach == 20 * 16


def test_invalid_sigmas_lists_what_does_not_fit() -> None:
    bank = FeatureBank.create(["gaussian_blur", "membrane_projections", "median"])
    assert bank.invalid_sigmas((400, 300)) == []
    assert bank.invalid_sigmas((400, 14)) == [("gaussian_blur", 8.0), ("gaussian_blur", 16.0), ("median", 16.0)]
    assert ("membrane_projections", None) in bank.invalid_sigmas((9, 400))


def test_memory_stays_within_bytes_per_pixel() -> None:
    """Measured by Python's own allocator, which NumPy reports to."""
    for features in ("weka-default", "all"):
        bank = FeatureBank.create(features, sigma_max=2.0)
        image = plane((300, 300))
        bank.compute(image[:40, :40])  # modules that are loaded on first use
        tracemalloc.start()
        try:
            bank.compute(image)
            peak = tracemalloc.get_traced_memory()[1] / image.size
        finally:
            tracemalloc.stop()
        assert 0.7 * bank.bytes_per_pixel < peak <= bank.bytes_per_pixel


# --- any plane ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">u2", ">i4", "<f2", ">f4", "<f8"])
def test_any_dtype_gives_what_its_float32_values_give(dtype: str) -> None:
    bank = FeatureBank.create("all", sigma_max=2.0)
    image = (plane((24, 31)) // 2).astype(dtype)
    np.testing.assert_array_equal(bank.compute(np.asfortranarray(image)), bank.compute(image.astype(np.float32)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 30), (5, 5)])
@pytest.mark.parametrize("constant", [False, True])
def test_planes_smaller_than_the_kernels(shape: tuple[int, int], constant: bool) -> None:
    """Finite by the border rule of each family; Neighbors is missing where TWS has no value."""
    image = np.full(shape, 1000, dtype=np.uint16) if constant else plane(shape)
    result = ALL.compute(image)
    missing = {b.family for b in ALL.blocks if not np.isfinite(result[b.start : b.stop]).all()}
    assert missing == {"neighbors"}  # sigma 16 is beyond every one of these planes


def test_constant_plane_is_finite_and_flat() -> None:
    """No division by zero, and no border to be seen.

    A blurred 1000 has an error of 1e-4 (float32), which two Sobel filters of weight 8 enlarge; where only such errors
    are left, they have an arbitrary direction.
    """
    result = ALL.compute(np.full((70, 80), 1000, dtype=np.uint16))
    assert np.isfinite(result).all()
    for block in ALL.blocks:
        for name, values in zip(block.channels, result[block.start : block.stop], strict=True):
            if not name.startswith("Hessian_Orientation"):
                np.testing.assert_allclose(values, values[35, 40], rtol=2e-5, atol=2e-2, err_msg=name)


# --- descriptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bank",
    [
        ALL,
        FeatureBank.create("weka-default", sigma_min=0.3, sigma_max=5.0, membrane_patch=11, membrane_thickness=4),
        FeatureBank.create(["hessian", "entropy"], sigmas={"hessian": [0, 1.7], "entropy": [3, 9]}),
        FeatureBank.create("all", sigma_min=1.5),
        FeatureBank.create("all", hessian="legacy"),
        FeatureBank.create("all", gabor="exact"),
    ],
)
def test_description_round_trip_through_json(bank: FeatureBank) -> None:
    again = FeatureBank.from_dict(json.loads(json.dumps(bank.to_dict())))
    assert again == bank
    assert [block.key for block in again.blocks] == [block.key for block in bank.blocks]


@pytest.mark.parametrize(("sigma", "version"), [(16.0, 1), (21.25, 1), (21.3, 2), (64.0, 2)])
@pytest.mark.parametrize("family", ["gaussian_blur", "sobel_filter", "hessian", "difference_of_gaussians"])
def test_blurs_on_reduced_lines_changed_in_version_2(family: str, sigma: float, version: int) -> None:
    bank = FeatureBank.create([family], sigmas={family: [1.0, sigma]})
    assert bank.definition_version == bank.to_dict()["definition_version"] == version
    older = {**bank.to_dict(), "definition_version": 1}
    if version == 1:
        assert FeatureBank.from_dict(older) == bank
    else:
        with pytest.raises(ModelError, match="other values now") as caught:
            FeatureBank.from_dict(older)
        assert "train or import again" in str(caught.value)


def test_the_legacy_hessian_is_another_bank() -> None:
    legacy, current = (FeatureBank.create(["hessian"], hessian=formula) for formula in ("legacy", "current"))
    assert legacy != current
    assert legacy.channels == current.channels
    assert {block.key for block in legacy.blocks[1:]}.isdisjoint(block.key for block in current.blocks)
    assert legacy.definition_version == 2  # older programs must not take it for the current one
    assert "hessian" not in current.to_dict()
    assert FeatureBank.create(["mean"], hessian="legacy") == FeatureBank.create(["mean"])
    assert FeatureBank.create(["gabor"], gabor="exact").definition_version == 2
    with pytest.raises(UsageError, match="fast, exact"):
        FeatureBank.create(["gabor"], gabor="slow")
    with pytest.raises(UsageError, match="current, legacy"):
        FeatureBank.create(["hessian"], hessian="old")
    with pytest.raises(ModelError, match="current, legacy"):
        FeatureBank.from_dict({**legacy.to_dict(), "hessian": ["old"]})


def test_other_families_did_not_change() -> None:
    others = [name for name in PLANE_FAMILIES if name not in ("gaussian_blur", "sobel_filter", "hessian")]
    others.remove("difference_of_gaussians")
    assert FeatureBank.create(others, sigma_min=64, sigma_max=64).definition_version == 1


def damaged(**changes: object) -> dict[str, object]:
    return {**FeatureBank.create(["hessian", "gabor"]).to_dict(), **changes}


@pytest.mark.parametrize(
    ("description", "named"),
    [
        (None, "definition_version"),
        ([], "definition_version"),
        ({}, "membrane_patch"),
        ({**damaged(), "extra": 1}, "extra"),
        (damaged(definition_version="1"), "definition_version"),
        (damaged(definition_version=0), "definition_version 0"),
        (damaged(definition_version=DEFINITION_VERSION + 1), "newer"),
        (damaged(membrane_patch=19.0), "membrane_patch"),
        (damaged(membrane_patch=18), "membrane patch"),
        (damaged(membrane_thickness=True), "membrane_thickness"),
        (damaged(membrane_thickness=-1), "membrane thickness"),
        (damaged(families=["hessian"]), "families"),
        (damaged(families={"hessians": [1.0]}), "hessians"),
        (damaged(families={"hessian": "1.0"}), "hessian"),
        (damaged(families={"hessian": ["1.0"]}), "hessian"),
        (damaged(families={"hessian": []}), "hessian"),
        (damaged(families={"hessian": [2.0, 1.0]}), "hessian"),
        (damaged(families={"hessian": [1.0, 1.0]}), "hessian"),
        (damaged(families={"hessian": [float("nan")]}), "hessian"),
        (damaged(families={"hessian": [10**400]}), "hessian"),
        (damaged(families={"median": [0.0]}), "median"),
        (damaged(families={"gabor": [1.0]}), "gabor"),
        (damaged(families={"entropy": [0.5]}), "entropy"),
    ],
)
def test_malformed_descriptions_name_the_field(description: object, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        FeatureBank.from_dict(description)  # type: ignore[arg-type]
