"""Tolerances between kernels and reference: how they are measured, and those of forests and of NAD.

Those of the feature families are in their rows, :mod:`gpu_tomoclass.features.families`.
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


FOREST = Tolerance(
    6.1e-8,
    "votes are added in float64 in another order, so the float32 result may round the other way: 1 ulp below 1",
)
"""Of probabilities, absolute."""
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


def largest_difference(result: npt.NDArray[Any], expected: npt.NDArray[Any], *, relative: bool = True) -> float:
    """Largest difference of two stacks of channels.

    Parameters
    ----------
    result, expected : numpy.ndarray
        (n_channels, ...), of the same shape.
    relative : bool
        As a share of the channel's largest finite absolute value in ``expected``, as in the table of the families.

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
