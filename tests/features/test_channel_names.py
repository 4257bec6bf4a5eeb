"""A bank from the channel names that Trainable Weka Segmentation stores in its files."""

from __future__ import annotations

import re

import numpy as np
import pytest
from golden_sets import GoldenSet
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.channel_names import grey_dimensions, image_kind
from gpu_tomoclass.features.families import FAMILIES

ALL = FeatureBank.create("all")


def names_in_arff(golden: dict[str, GoldenSet]) -> list[str]:
    text = golden["small8"].arff_path.read_text()
    return [(a or b) for a, b in re.findall(r"^@attribute (?:'([^']+)'|(\S+)) numeric", text, flags=re.MULTILINE)]


def test_names_of_a_real_arff_file(golden: dict[str, GoldenSet]) -> None:
    names = names_in_arff(golden)
    assert len(names) == 272
    bank, order = FeatureBank.from_channels(names)
    assert bank == ALL
    np.testing.assert_array_equal(order, np.arange(272))


def test_single_threaded_order_has_gabor_after_kuwahara() -> None:
    gabor = [name for name in ALL.channels if name.startswith("Gabor")]
    others = [name for name in ALL.channels if not name.startswith("Gabor")]
    last = others.index("Kuwahara_19_ 10_2") + 1
    names = others[:last] + gabor + others[last:]
    bank, order = FeatureBank.from_channels(names)
    assert bank == ALL
    assert [names[i] for i in order] == list(ALL.channels)
    assert names != list(ALL.channels)


@settings(max_examples=60, deadline=None)
@given(
    families=st.lists(st.sampled_from(list(FAMILIES)), min_size=1, max_size=6, unique=True),
    sigma_min=st.sampled_from([0.5, 0.7, 1.0, 1.3, 1.5, 2.0, 3.0]),
    doublings=st.integers(1, 4),
    patch=st.sampled_from([3, 11, 19, 25]),
    thickness=st.sampled_from([1, 2]),
    random=st.randoms(use_true_random=False),
)
def test_any_bank_is_found_again_from_its_names(families, sigma_min, doublings, patch, thickness, random) -> None:  # type: ignore[no-untyped-def]
    bank = FeatureBank.create(
        families,
        sigma_min=sigma_min,
        sigma_max=min(sigma_min * 2**doublings, 32.0),  # the largest across planes
        membrane_patch=patch,
        membrane_thickness=thickness,
    )
    names = list(bank.channels)
    random.shuffle(names)
    dimensions = max(bank.dimensions) if len(bank.dimensions) == 1 else None  # shuffled names do not always tell
    again, order = FeatureBank.from_channels(names, dimensions=dimensions)
    assert {block.key for block in again.blocks} == {block.key for block in bank.blocks}
    assert [names[i] for i in order] == list(again.channels)


def test_only_the_plane_itself() -> None:
    bank, order = FeatureBank.from_channels(["original"])
    assert bank.channels == ("original",)
    assert order.tolist() == [0]


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["original", "Gaussian_blur_1.0", "Hue"], "'Hue': unknown"),
        (["original", "Gaussian_Blur_1.0"], "Gaussian_Blur_1.0"),
        (["original", "Hessian_middle_1.0_true"], "Hessian_largest_1.0_true.*: missing"),  # 3-D
        (["original", "Mean_1.0", "Mean_1.0"], "'Mean_1.0': twice"),
        (["Mean_1.0"], "'original': missing"),
        (["original", "Hessian_1.0"], "Hessian_Trace_1.0"),
        (["original", "Derivatives_2_2_1.0"], "Derivatives_3_3_1.0"),
        (["original", *(f"Kuwahara_{p}_ 10_{i}" for p in (19, 21) for i in range(3))], "membrane patch: 19, 21"),
        (["original", "Kuwahara_20_ 10_0", "Kuwahara_20_ 10_1", "Kuwahara_20_ 10_2"], "odd number"),
        (["original", "Median_" + "9" * 400], "Median_9"),
        (["original", "Median_-1.0"], "Median_-1.0"),
        (["original", "Entropy_0_32"], "Entropy_0_32|entropy"),
        ([f"Gaussian_{i}" for i in range(9)], "and 4 more"),
    ],
)
def test_names_that_are_not_a_bank_are_named(names: list[str], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        FeatureBank.from_channels(names)


def test_contradicting_thickness() -> None:
    bank = FeatureBank.create(["membrane_projections", "anisotropic_diffusion"], sigma_max=1.0)
    names = [name.replace("0.9_1.0", "0.9_2.0") for name in bank.channels]
    with pytest.raises(ModelError, match="membrane thickness: 1, 2"):
        FeatureBank.from_channels(names)


def of_3d(*families: str, sigmas: tuple[float, ...] = (1.0, 2.0)) -> list[str]:
    return ["original", *(f"{family}_{sigma}" for sigma in sigmas for family in families)]


@pytest.mark.parametrize(
    ("relation", "names", "kind"),
    [
        ("TWS-2D-v4.0.0-grayscale", ["original", "Mean_1.0"], "2D"),
        ("TWS-3D-v4.0.0-grayscale", ["original", "Mean_1.0"], "3D"),
        ("TWS-2D-v4.0.0-RGB", ["original", "Mean_1.0"], "RGB"),
        ("TWS-3D-v3.3.2-RGB", ["original", "Mean_1.0"], "RGB"),
        ("segment", ["original", "Hue", "Saturation", "Brightness", "Mean_1.0"], "RGB"),
        ("segment", list(ALL.channels), "2D"),
        ("segment", ["original", "Structure_largest_1.0_1.0", "Structure_smallest_1.0_1.0"], "2D"),
        ("segment", ["original", "Structure_largest_1.0_1.0", "Structure_middle_1.0_1.0"], "3D"),
        ("segment", ["original", "Hessian_largest_1.0_true"], "3D"),
        ("segment", ["original", "Edges_1.0"], "3D"),
        ("segment", ["original", "Difference_of_Gaussian_1.0_2.0"], "3D"),
        ("segment", ["original", "Derivatives_2_2_2_1.0"], "3D"),
        ("segment", ["original", "Derivatives_2_2_1.0"], "2D"),
        # What both have, in the order of FeatureStack and of FeatureStack3D.
        ("segment", of_3d("Gaussian_blur", "Variance", "Mean", "Minimum", "Maximum", "Median", "Laplacian"), "2D"),
        ("segment", of_3d("Gaussian_blur", "Laplacian", "Minimum", "Maximum", "Mean", "Median", "Variance"), "3D"),
        ("segment-weka.filters.Resample", of_3d("Mean", "Variance", sigmas=(1.0, 2.0, 4.0, 8.0)), "3D"),
        ("segment", of_3d("Variance", "Mean"), "2D"),
        ("", of_3d("Maximum", "Mean"), "3D"),
        ("segment", of_3d("Mean", "Median"), ""),
        ("segment", of_3d("Gaussian_blur", "Minimum", "Maximum", "Median"), ""),
        ("segment", ["original", "Variance_1.0", "Mean_1.0", "Mean_2.0", "Variance_2.0"], ""),
        ("segment", ["original"], ""),
    ],
)
def test_kind_of_features(relation: str, names: list[str], kind: str) -> None:
    assert image_kind(relation, names) == kind
    if kind == "RGB":
        with pytest.raises(ModelError, match="colour images"):
            grey_dimensions(relation, names)
    else:
        dimensions, notes = grey_dimensions(relation, names)
        assert dimensions == (3 if kind == "3D" else 2)
        assert bool(notes) == (kind == "")
