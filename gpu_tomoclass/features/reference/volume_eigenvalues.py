"""E3: absolute eigenvalues of symmetric 3 x 3 matrices by Cardano's formula, as ImageScience computes them.

Source: ``imagescience.feature.Hessian`` and ``Structure`` of ImageScience 3.0.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def absolute_eigenvalues(entries: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Absolute eigenvalues in descending order.

    Where the characteristic polynomial has no three different roots to the last bit (w^3 = 0), all are 0: so it is for
    multiples of the identity.

    Parameters
    ----------
    entries : six arrays
        xx, xy, xz, yy, yz, zz: float32, of one shape.

    Returns
    -------
    ndarray
        (3, ...) float32: largest, middle, smallest.
    """
    xx, xy, xz, yy, yz, zz = (entry.astype(np.float64) for entry in entries)
    a = -(xx + yy + zz)
    b = xx * yy + xx * zz + yy * zz - xy * xy - xz * xz - yz * yz
    c = xx * (yz * yz - yy * zz) + yy * xz * xz + zz * xy * xy - 2.0 * xy * xz * yz
    q = (a * a - 3.0 * b) / 9.0
    r = (a * a * a - 4.5 * a * b + 13.5 * c) / 27.0
    w = np.sqrt(np.maximum(q, 0.0))
    cube = w * w * w
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = np.arccos(np.clip(r / cube, -1.0, 1.0))
    roots = [
        np.abs(-2.0 * w * np.cos(angle) - a / 3.0)
        for angle in (phi / 3.0, (phi + 2.0 * math.pi) / 3.0, (phi - 2.0 * math.pi) / 3.0)
    ]
    values = np.sort(np.where(cube == 0.0, 0.0, np.stack(roots)), axis=0)[::-1]
    return values.astype(np.float32)
