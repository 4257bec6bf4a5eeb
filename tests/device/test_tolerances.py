"""The measure by which kernels are compared with the reference."""

import numpy as np
import pytest

from gpu_tomoclass.device import largest_difference


@pytest.mark.parametrize(
    ("result", "expected", "relative", "difference"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], True, 0),
        ([[1.0, 2.5]], [[1.0, 2.0]], True, 0.25),  # as a share of 2
        ([[1.0, 2.5]], [[1.0, 2.0]], False, 0.5),
        ([[0.0, 8.0], [0.0, 1.5]], [[0.0, 8.0], [0.0, 1.0]], True, 0.5),  # of its own channel
        ([[1e-30]], [[0.0]], True, np.inf),
        ([[np.nan, -4.0]], [[np.nan, -4.5]], True, 0.5 / 4.5),
        ([[np.nan, 1.0]], [[1.0, np.nan]], True, np.inf),
        ([[np.inf]], [[-np.inf]], True, np.inf),
        ([[1.0]], [[1.0, 1.0]], True, np.inf),
    ],
)
def test_by_hand(result, expected, relative, difference):
    found = largest_difference(np.float32(result), np.float32(expected), relative=relative)
    assert found == pytest.approx(difference, rel=1e-6)
