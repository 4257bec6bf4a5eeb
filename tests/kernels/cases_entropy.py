"""Entropy over disks."""

from __future__ import annotations

from family_cases import Planes, family_case


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
CASES = [
    family_case(
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
    ),
]
