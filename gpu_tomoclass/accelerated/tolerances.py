"""How far the kernels of each family may be from its reference, and why: one table.

``Tolerance(0)`` asks for equal bits. A factor is a share of the channel's largest absolute value.
"""

from __future__ import annotations

from typing import NamedTuple


class Tolerance(NamedTuple):
    """``factor`` between kernel and reference, ``ptx`` between the PTX and the CPU build of the same kernel."""

    factor: float
    why: str
    ptx: float = 0.0


TOLERANCES: dict[str, Tolerance] = {
    "original": Tolerance(0, "a copy"),
    "neighbors": Tolerance(0, "copies"),
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
    "membrane_projections": Tolerance(0, "the same sums in the same order"),
    "variance": Tolerance(0, "the same sums in the same order"),
    "mean": Tolerance(0, "the same sums in the same order"),
    "minimum": Tolerance(0, "one of the values"),
    "maximum": Tolerance(0, "one of the values"),
    "median": Tolerance(0, "one of the values"),
    "entropy": Tolerance(
        1.2e-7, "sums of whole numbers here, of doubles in the reference: they differ by 1e-15, rarely in the float32"
    ),
}
