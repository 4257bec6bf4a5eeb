"""Table of how far the kernels of each family may be from its reference, and why."""

from __future__ import annotations

from gpu_tomoclass.device import Tolerance

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
"""By family; ``Tolerance(0)`` asks for equal bits, a factor is a share of the channel's largest absolute value."""
