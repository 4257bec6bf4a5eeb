"""Gaussian_blur, Sobel_filter, Hessian, Difference_of_gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from family_cases import Planes, expected_family, family_case, run_family

SIGMAS = tuple({"sigma": s} for s in (1.0, 2.0, 4.0, 8.0, 16.0))
WITH_ZERO = ({"sigma": 0.0}, *SIGMAS)
FEW = ({"sigma": 0.0}, {"sigma": 2.0})
DIFFERENCES = tuple({"sigma": 2.0**k, "smaller": [2.0**i for i in range(k)]} for k in (1, 2, 3, 4))
ORIENTATION = 5  # channel of the Hessian

# Planes smaller than a kernel, of one row, column or pixel; lines of two radii and one more or less (the exception of
# ImageJ at the end of a line: radius 15 at sigma 8).
BLUR_SMALL = (
    Planes(2, 13, 67, "noise", ({"sigma": 2.0},)),
    Planes(2, 9, 37, "float", ({"sigma": 1.0}, {"sigma": 8.0})),
    Planes(1, 1, 40, "noise", ({"sigma": 0.5}, {"sigma": 16.0})),
    Planes(1, 29, 1, "noise", ({"sigma": 8.0},)),
    Planes(1, 30, 31, "float", ({"sigma": 8.0},)),
    Planes(1, 1, 1, "constant", ({"sigma": 4.0},)),
)
# Above 21.25 lines are reduced: by 2, by 5, by their own length.
LARGE = tuple({"sigma": s} for s in (21.3, 52.0, 256.0))
LARGE_SMALL = (
    Planes(2, 11, 37, "noise", LARGE[:1]),
    Planes(1, 5, 23, "float", LARGE),
    Planes(1, 1, 1, "constant", LARGE),
)
# Tiles of 32 x 8 pixels (GPU) and 256 x 16 (CPU), exactly and with one pixel more.
EDGES_SMALL = (
    Planes(2, 13, 37, "noise", FEW),
    Planes(1, 17, 33, "float", FEW[:1]),
    Planes(1, 16, 32, "steps", FEW[:1]),
    Planes(1, 1, 40, "noise", FEW),
    Planes(1, 40, 1, "float", FEW),
    Planes(1, 1, 1, "constant", FEW[:1]),
)


def realistic(parameters: tuple, *golden: str) -> tuple[Planes, ...]:
    shapes = {"small8": (2, 56, 64), "small16": (3, 64, 56), "small32": (2, 56, 64)}
    return (
        *(Planes(*shapes[kind], kind, parameters) for kind in golden),
        Planes(1, 90, 110, "steps", parameters),
        Planes(1, 20, 30, "constant", parameters),
        Planes(2, 61, 257, "float", parameters),
        Planes(1, 317, 428, "noise", parameters),
    )


GOLDEN = ("small8", "small16", "small32")
HESSIAN = family_case("hessian", sizes=(*EDGES_SMALL, *realistic(WITH_ZERO, *GOLDEN)), small_sizes=EDGES_SMALL)
CASES = [
    family_case("gaussian_blur", sizes=(*BLUR_SMALL, *realistic(SIGMAS, *GOLDEN)), small_sizes=BLUR_SMALL),
    family_case(
        "gaussian_blur",
        name="large gaussian blur",
        sizes=(*LARGE_SMALL, *realistic(LARGE, "small16")),
        small_sizes=LARGE_SMALL,
    ),
    family_case("sobel_filter", sizes=(*EDGES_SMALL, *realistic(WITH_ZERO, *GOLDEN)), small_sizes=EDGES_SMALL),
    HESSIAN,
    replace(
        HESSIAN,
        name="hessian without orientation",
        run=lambda device, inputs: without_orientation(run_family("hessian", device, inputs)),
        expected=lambda inputs: without_orientation(expected_family("hessian", inputs)),
        sizes=realistic(FEW, "small32"),
        small_sizes=EDGES_SMALL[:1],
        tolerance=0,
        why="the same steps in the same precision",
    ),
    family_case(
        "difference_of_gaussians",
        sizes=(
            Planes(2, 13, 37, "float", DIFFERENCES[:2]),
            Planes(1, 1, 40, "noise", DIFFERENCES[:2]),
            *realistic(DIFFERENCES, *GOLDEN),
        ),
        small_sizes=(
            Planes(2, 13, 37, "float", DIFFERENCES[:2]),
            Planes(1, 1, 40, "noise", DIFFERENCES[:2]),
            Planes(1, 1, 1, "constant", DIFFERENCES[:1]),
        ),
    ),
]


def without_orientation(channels: np.ndarray) -> np.ndarray:
    """All channels of all blocks but the arc cosines."""
    return np.delete(channels, np.s_[ORIENTATION::8], axis=0)
