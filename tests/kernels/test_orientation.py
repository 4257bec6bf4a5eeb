"""The arc cosine of ``kernels/sobel.cu``: its tolerance allows a last bit anywhere; here it may differ rarely."""

from __future__ import annotations

import numpy as np
from cases_edges import HESSIAN, ORIENTATION
from family_cases import Planes

from gpu_tomoclass.device.native import NativeDevice


def test_orientations_are_the_nearest_float32_but_for_rare_ties() -> None:
    """A relative error of 1e-8 would change one in twenty; a library's last bit of a double, one in 10^8."""
    inputs = HESSIAN.inputs(Planes(1, 200, 300, "float", ({"sigma": 0.0}, {"sigma": 1.0})))
    ours, expected = (
        values[ORIENTATION::8] for values in (HESSIAN.run(NativeDevice(), inputs), HESSIAN.expected(inputs))
    )
    assert np.abs(expected).min() < 0.01  # the whole range of the arc cosine
    assert np.abs(expected).max() > 1.56
    assert np.count_nonzero(ours != expected) <= 2
