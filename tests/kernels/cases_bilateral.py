"""Bilateral: two sizes of the filter, two ranges of grey levels."""

from __future__ import annotations

from family_cases import Planes, family_case

SMALL = (
    Planes(2, 9, 29),
    Planes(1, 1, 40),
    Planes(1, 33, 1),
    Planes(1, 1, 1),
    Planes(1, 3, 7, "float", display_range=(-0.5, 0.75)),
    Planes(1, 17, 9, "steps"),
)
CASES = [
    family_case(
        "bilateral",
        sizes=(
            *SMALL,
            Planes(2, 56, 64, "small8"),
            Planes(3, 64, 56, "small16"),
            Planes(1, 56, 64, "small32"),
            Planes(1, 61, 53, "float"),
            Planes(1, 20, 30, "constant"),
            Planes(2, 9, 37),
            Planes(3, 31, 131, "steps"),
            Planes(1, 317, 428),
        ),
        small_sizes=SMALL,
    ),
]
