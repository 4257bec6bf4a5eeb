"""Entropy over disks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from family_cases import Planes, family_case
from kernel_cases import Inputs


def radii(*values: int) -> tuple[dict[str, int], ...]:
    return tuple({"radius": value} for value in values)


DEFAULT = radii(1, 2, 4, 8, 16)
SMALL = (
    Planes(2, 21, 35, parameters=radii(1, 4)),
    Planes(1, 1, 40, "float", parameters=radii(2, 8)),
    Planes(1, 17, 1, parameters=radii(3, 5)),
    Planes(1, 5, 3, "steps", parameters=radii(16)),
    Planes(1, 1, 1, "float", parameters=radii(0, 1)),
)
# Pixels per level, of all 225 in a disk of radius 8. The exact entropies, 4.3443167209625235 and 4.969899892807004, lie
# within 10^-15 of the middle between two float32, and TWS's sums of doubles on the other side of it.
NEAR_TIES = (
    (11, 8, 37, 11, 4, 4, 7, 5, 4, 2, 1, 4, 7, 1, 1, 3, 1, 5, 7, 38, 4, 11, 2, 1, 5, 7, 2, 2, 2, 11, 2, 2, 2, 11),
    (10, 4, 7, 7, 5, 1, 13, 5, 7, 7, 7, 7, 10, 3, 7, 7, 7, 6, 5, 7, 10, 5, 7, 6, 3, 5, 5, 5, 11, 11, 8, 6, 9, 2),
)
TIES = (Planes(2, 17, 17, parameters=radii(8)),)


def near_ties(random: np.random.Generator, size: Planes) -> Inputs:
    """Planes of 256 levels in the middle of which stands a disk with a histogram of :data:`NEAR_TIES`."""
    y, x = np.mgrid[-8:9, -8:9]
    planes = np.full((len(NEAR_TIES), *x.shape), 255, np.float32)
    for plane, counts in zip(planes, NEAR_TIES, strict=True):
        plane[x * x + y * y <= 8.5**2] = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return {"planes": planes, "parameters": size.parameters, "display_range": None}


ENTROPY = family_case(
    "entropy",
    sizes=(
        *SMALL,
        Planes(1, 1, 1, parameters=DEFAULT),
        Planes(1, 1, 67, parameters=DEFAULT),
        Planes(1, 131, 1, parameters=DEFAULT),
        Planes(1, 5, 3, "float", parameters=DEFAULT),
        Planes(2, 13, 71, "steps", parameters=DEFAULT),
        Planes(1, 40, 33, "constant", parameters=DEFAULT),
        Planes(3, 31, 43, "float", parameters=radii(3, 40)),
        Planes(2, 56, 64, "small8", parameters=DEFAULT),
        Planes(2, 64, 56, "small16", parameters=DEFAULT),
        Planes(2, 56, 64, "small32", parameters=DEFAULT),
        Planes(1, 11, 23, parameters=radii(150)),  # more pixels in the disk than 16 bits count
        Planes(1, 317, 428, parameters=DEFAULT),
    ),
    small_sizes=SMALL,
)
CASES = [ENTROPY, replace(ENTROPY, name="entropy near ties", make=near_ties, sizes=TIES, small_sizes=TIES)]
