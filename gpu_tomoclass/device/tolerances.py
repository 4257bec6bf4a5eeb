"""How far the kernels of each family may be from its reference, and why: one table.

``Tolerance(0)`` asks for equal bits. A factor is a share of the channel's largest absolute value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Tolerance(NamedTuple):
    """``factor`` between kernel and reference, ``ptx`` between the PTX and the CPU build of the same kernel."""

    factor: float
    why: str
    ptx: float = 0.0


EIGENVALUES = "cosines differ in a double's last bit, so that rarely the float32 does; all else in no bit"
TOLERANCES: dict[str, Tolerance] = {
    "original": Tolerance(0, "a copy"),
    "neighbors": Tolerance(0, "copies"),
    "gabor": Tolerance(
        6e-6,
        "sums of up to 625 products in float32, which a plain loop gets wrong by 1e-6 to 1e-5; TWS's own are off by"
        " 7e-6 of a standard deviation, about 2e-6 of the largest value",
        ptx=6e-6,
    ),
    "anisotropic_diffusion": Tolerance(
        0, "powers and inverse lengths within 1e-15 of the reference's: one float32 in 10^8 rounds the other way"
    ),
    "bilateral": Tolerance(0, "the same sums in the same order"),
    "lipschitz": Tolerance(0, "whole numbers"),
    "gaussian_blur": Tolerance(0, "the same sums in the same order"),
    "sobel_filter": Tolerance(0, "the same sums in the same order"),
    "hessian": Tolerance(
        1.2e-7, "arc cosines differ in a double's last bit, so that rarely the float32 does; all else in no bit"
    ),
    "difference_of_gaussians": Tolerance(0, "the same sums in the same order"),
    "derivatives": Tolerance(0, "the same sums in the same order"),
    "laplacian": Tolerance(0, "the same sums in the same order"),
    "structure": Tolerance(0, "the same sums in the same order"),
    "kuwahara": Tolerance(0, "the same sums and comparisons in the same order"),
    "membrane_projections": Tolerance(0, "the same sums in the same order"),
    "variance": Tolerance(0, "the same sums in the same order"),
    "mean": Tolerance(0, "the same sums in the same order"),
    "minimum": Tolerance(0, "one of the values"),
    "maximum": Tolerance(0, "one of the values"),
    "median": Tolerance(0, "one of the values"),
    "entropy": Tolerance(
        0, "sums that are right to 1e-15; where the reference's doubles could round the other way, they are added again"
    ),
    "gaussian_blur_3d": Tolerance(0, "the same sums in the same order"),
    "difference_of_gaussian_3d": Tolerance(0, "the same sums in the same order"),
    "derivatives_3d": Tolerance(0, "the same sums in the same order"),
    "laplacian_3d": Tolerance(0, "the same sums in the same order"),
    "edges_3d": Tolerance(0, "the same sums in the same order"),
    "hessian_3d": Tolerance(1.2e-7, EIGENVALUES),
    "structure_3d": Tolerance(1.2e-7, EIGENVALUES),
    "minimum_3d": Tolerance(0, "one of the values"),
    "maximum_3d": Tolerance(0, "one of the values"),
    "mean_3d": Tolerance(0, "the same sums in the same order"),
    "median_3d": Tolerance(0, "one of the values, or half the sum of two"),
    "variance_3d": Tolerance(0, "the same sums in the same order"),
}

FOREST = Tolerance(
    6.1e-8,
    "votes are added in float64 in another order, so the float32 result may round the other way: 1 ulp below 1",
)
NAD = Tolerance(
    6.6e-6,
    "float32 steps; the automatic thresholds and the ramps around them magnify rounding: a plain float32 evaluation of"
    " the reference is off by 3.3e-6 after 50 of them",
)
NAD_VOLUME = Tolerance(
    9.4e-6,
    "as NAD; where two eigenvalues are nearly equal, rounding turns the vectors, too: a plain float32 evaluation of the"
    " reference is off by 4.7e-6 after one step, less after fifty",
)
"""Of probabilities, absolute."""


def largest_difference(result: npt.NDArray[Any], expected: npt.NDArray[Any], *, relative: bool = True) -> float:
    """How far two stacks of channels are apart at most.

    Parameters
    ----------
    result, expected : numpy.ndarray
        (n_channels, ...), of the same shape.
    relative : bool
        As a share of the channel's largest finite absolute value in ``expected``, as in :data:`TOLERANCES`.

    Returns
    -------
    float
        0 if all values are equal; infinite if shapes, places of NaN or infinite values differ.
    """
    if result.shape != expected.shape or not np.array_equal(np.isfinite(result), np.isfinite(expected)):
        return np.inf
    is_finite = np.isfinite(expected)
    if not np.array_equal(result[~is_finite], expected[~is_finite], equal_nan=True):
        return np.inf
    largest = 0.0
    for ours, theirs, here in zip(result, expected, is_finite, strict=True):
        difference = np.abs(ours[here].astype(np.float64) - theirs[here]).max(initial=0)
        scale = np.abs(theirs[here].astype(np.float64)).max(initial=0) if relative else 1.0
        if difference > 0:
            largest = max(largest, float(difference / scale) if scale else np.inf)
    return largest
