"""Gaussian_blur, Sobel_filter, Hessian, Difference_of_gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from family_cases import Planes, expected_family, family_case, run_family
from kernel_cases import Inputs

SIGMAS = tuple({"sigma": s} for s in (1.0, 2.0, 4.0, 8.0, 16.0))
WITH_ZERO = ({"sigma": 0.0}, *SIGMAS)
FEW = ({"sigma": 0.0}, {"sigma": 2.0})
LEGACY = tuple(p | {"legacy": True} for p in FEW)
DIFFERENCES = tuple({"sigma": 2.0**k, "smaller": [2.0**i for i in range(k)]} for k in (1, 2, 3, 4))
MANY = ({"sigma": 4.0, "smaller": [0.5 + 0.25 * i for i in range(9)]},)  # more than one launch takes
ORIENTATION = 5  # channel of the Hessian

# Planes smaller than a kernel, of one row, column or pixel; lines of two radii (15 at sigma 8) and one less.
BLUR_SMALL = (
    Planes(2, 13, 67, "noise", ({"sigma": 2.0},)),
    Planes(2, 9, 37, "float", ({"sigma": 1.0}, {"sigma": 8.0})),
    Planes(1, 1, 40, "noise", ({"sigma": 0.5}, {"sigma": 16.0})),
    Planes(1, 29, 1, "noise", ({"sigma": 8.0},)),
    Planes(1, 30, 31, "float", ({"sigma": 8.0},)),
    Planes(1, 1, 1, "constant", ({"sigma": 4.0},)),
)
ENDS_RADIUS = 5  # at sigma 2; lines of one less than two radii, of two, and more
ENDS = tuple(Planes(2, ny, nx, parameters=({"sigma": 2.0},)) for ny, nx in ((9, 31), (31, 10), (10, 9)))
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


def opposite_ends(random: np.random.Generator, size: Planes) -> Inputs:
    """A bright and a dark pixel at the ends of a kernel, so that in its middle all that is left is of rounding size.

    That shows to where ImageJ adds the rest beyond the end: in plane 0 along x, in plane 1 along y.
    """
    planes = np.zeros((2, size.ny, size.nx), np.float32)
    between = 2 * ENDS_RADIUS - 1
    planes[0, :, -1], planes[0, :, size.nx - between] = 60000, -60000
    planes[1, -1, :], planes[1, size.ny - between, :] = 60000, -60000
    return {"planes": planes, "parameters": size.parameters, "display_range": None}


HESSIAN = family_case(
    "hessian",
    sizes=(*EDGES_SMALL, *realistic(WITH_ZERO, *GOLDEN), Planes(2, 56, 64, "small8", LEGACY)),
    small_sizes=(*EDGES_SMALL, Planes(1, 9, 33, "noise", LEGACY)),
)
BLUR = family_case("gaussian_blur", sizes=(*BLUR_SMALL, *realistic(SIGMAS, *GOLDEN)), small_sizes=BLUR_SMALL)
CASES = [
    BLUR,
    replace(BLUR, name="gaussian blur of opposite ends", make=opposite_ends, sizes=ENDS, small_sizes=ENDS),
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
            Planes(1, 31, 40, "noise", MANY),
            *realistic(DIFFERENCES, *GOLDEN),
        ),
        small_sizes=(
            Planes(2, 13, 37, "float", DIFFERENCES[:2]),
            Planes(1, 1, 40, "noise", DIFFERENCES[:2]),
            Planes(1, 3, 5, "noise", MANY),
            Planes(1, 1, 1, "constant", DIFFERENCES[:1]),
        ),
    ),
]


def without_orientation(channels: np.ndarray) -> np.ndarray:
    """All channels of all blocks but the arc cosines."""
    return np.delete(channels, np.s_[ORIENTATION::8], axis=0)
